"""The allowed options of a Redis URL: the options of redis-py that the service does not depend on.

The service itself sets the protocol, decoding, retries, health checks and the number of connections.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

EXAMPLE: Final = "a URL like redis://127.0.0.1:6379/0"

_DATABASE: Final = re.compile(r"/?|/[0-9]{1,9}")
_TIME: Final = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6})?")
_BOOLEANS: Final = frozenset({"true", "false", "yes", "no", "1", "0"})


def _is_time(value: str) -> bool:
    return _TIME.fullmatch(value) is not None and float(value) > 0


_SECONDS: Final = ("a number of seconds above 0", _is_time)
_TEXT: Final = ("text", bool)
_BOOLEAN: Final = ("true or false", lambda value: value.lower() in _BOOLEANS)

Option = tuple[str, Callable[[str], object]]
"""What is expected, and a function that checks a value."""

_ANYWHERE: Final[dict[str, Option]] = {
    "client_name": ("visible ASCII characters", re.compile(r"[!-~]+").fullmatch),
    "db": ("the number of a database", re.compile(r"[0-9]{1,9}").fullmatch),
    "password": _TEXT,
    "socket_connect_timeout": _SECONDS,
    "socket_timeout": _SECONDS,
    "username": _TEXT,
}
_TCP: Final[dict[str, Option]] = {"socket_keepalive": _BOOLEAN}
_TLS: Final[dict[str, Option]] = {
    "ssl_ca_certs": _TEXT,
    "ssl_ca_path": _TEXT,
    "ssl_cert_reqs": ("none, optional or required", {"none", "optional", "required"}.__contains__),
    "ssl_certfile": _TEXT,
    "ssl_check_hostname": _BOOLEAN,
    "ssl_ciphers": _TEXT,
    "ssl_keyfile": _TEXT,
    "ssl_password": _TEXT,
}

OPTIONS: Final[dict[str, dict[str, Option]]] = {
    "redis": _ANYWHERE | _TCP,
    "rediss": _ANYWHERE | _TCP | _TLS,
    "unix": _ANYWHERE,
}
"""The allowed query options, by the scheme of the URL."""


def expected_of(url: str) -> str | None:
    """What was expected instead of the URL; None if it is usable. The text has no value of the URL."""
    parts = _split(url)
    if parts is None:
        return EXAMPLE
    allowed = OPTIONS[parts.scheme]
    given = parse_qsl(parts.query, keep_blank_values=True)
    names = [name for name, _ in given]
    if not {*names} <= {*allowed}:
        return f"a {parts.scheme}:// URL with no other options than {', '.join(sorted(allowed))}"
    if len({*names}) < len(names) or ("db" in names and parts.scheme != "unix" and parts.path.strip("/")):
        return "a URL that sets each option once"
    for name, value in given:
        expected, fits = allowed[name]
        if not fits(value):
            return f"a URL whose option {name} is {expected}"
    return None


def unfit_for_cluster(url: str) -> str | None:
    """Why a usable URL cannot tell how to speak to the nodes of a Redis Cluster; None if it can."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return "a Redis Cluster is not on a Unix socket"
    if int(dict(parse_qsl(parts.query)).get("db") or parts.path.strip("/") or 0):
        return "a Redis Cluster has only one database, 0"
    return None


def _split(url: str) -> SplitResult | None:
    """The parts of the URL; None if it is not a Redis URL."""
    if "://" not in url or url != url.strip() or not url.isprintable():
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme == "unix":
        return parts if parts.path else None
    at_a_host = parts.hostname is not None and port != 0 and _DATABASE.fullmatch(parts.path) is not None
    return parts if at_a_host and parts.scheme in OPTIONS else None
