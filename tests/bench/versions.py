"""Which builds were measured: they weigh as much as what is written here."""

from __future__ import annotations

import platform
import sys
import sysconfig
from collections.abc import Mapping


def python() -> str:
    """The interpreter: its version, the compiler, how it was built, and whether it has the GIL."""
    details = [platform.python_compiler(), built(sysconfig.get_config_vars()), gil()]
    return f"{platform.python_implementation()} {platform.python_version()} ({', '.join(details)})"


def built(variables: Mapping[str, object]) -> str:
    """Whether it was optimised by a profile (PGO) and at link time (LTO): some 10 to 30 % of its speed."""
    if variables.get("Py_DEBUG"):
        return "debug build"
    arguments = str(variables.get("CONFIG_ARGS") or "")
    if not arguments:
        return "unknown optimisation"
    wanted = {"PGO": "--enable-optimizations", "LTO": "--with-lto"}
    found = [name for name, option in wanted.items() if option in arguments]
    return f"optimised: {' and '.join(found)}" if found else "not optimised"


def gil() -> str:
    """Whether the global interpreter lock is there, and is used."""
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "with GIL"
    return "free-threaded, GIL on" if sys._is_gil_enabled() else "free-threaded, GIL off"  # type: ignore[attr-defined]


def store(info: Mapping[str, object]) -> str:
    """Redis or Valkey, by what INFO says of the server; Valkey tells a Redis version for old clients, too."""
    if info.get("server_name") == "valkey":
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info['redis_version']}"
