"""Checks a PostgreSQL connection string for values that parse but cannot work.

libpq checks most values only when it connects. An impossible one would make PostgreSQL seem away for ever.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

_LAST_PORT: Final = 65_535

_TLS: Final = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_CHOICES: Final = {
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer", "require"),
    "load_balance_hosts": ("disable", "random"),
    "ssl_max_protocol_version": _TLS,
    "ssl_min_protocol_version": _TLS,
    "sslcertmode": ("disable", "allow", "require"),
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    # We write rows, which a standby does not accept.
    "target_session_attrs": ("any", "read-write", "primary"),
    # A replication connection does not accept our statements.
    "replication": ("false", "off", "no", "0"),
}
_NUMBERS: Final = (
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)
_METHODS: Final = ("password", "md5", "gss", "sspi", "scram-sha-256", "oauth", "none")
_NUMBER: Final = re.compile(r"\s*[+-]?[0-9]{1,9}\s*")


def problems(dsn: str) -> Iterator[str]:
    """The problems of a connection string. Each completes the sentence "expected a connection string ...".

    Raises:
        ValueError: it is not a connection string.
    """
    try:
        found = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    except psycopg.Error:
        raise ValueError("no connection string") from None
    if not found:
        raise ValueError("empty")
    for name, allowed in _CHOICES.items():
        value = found.get(name)
        if value and value not in allowed:
            yield f"with {name} one of {', '.join(allowed)}"
    for name in _NUMBERS:
        value = found.get(name)
        if value and not _NUMBER.fullmatch(value):
            yield f"with a whole number as {name}"
    methods = found.get("require_auth")
    if methods and not {method.lstrip("!") for method in methods.split(",")} <= {*_METHODS}:
        yield f"with require_auth of {', '.join(_METHODS)}"
    yield from _places(found)


def _places(found: dict[str, str]) -> Iterator[str]:
    """Problems of hosts, addresses and ports, which are lists that must fit each other."""
    counts = {name: found[name].count(",") + 1 for name in ("host", "hostaddr") if found.get(name)}
    if len(set(counts.values())) > 1:
        yield "with as many hosts as addresses"
    ports = found.get("port", "").split(",")
    if not all(re.fullmatch("[0-9]*", port) for port in ports):
        raise ValueError("a port that is no number")  # not shown: it may be part of a password
    if counts and len(ports) not in {1, *counts.values()}:
        yield "with one port, or as many as hosts"
    if not all(len(port) <= len(str(_LAST_PORT)) and 1 <= int(port) <= _LAST_PORT for port in ports if port):
        yield f"with ports from 1 to {_LAST_PORT}"
