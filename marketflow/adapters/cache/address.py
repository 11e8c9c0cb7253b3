"""Which database a Redis URL leads to, so that two databases are never taken for one."""

from __future__ import annotations

import ipaddress
import json
from contextlib import suppress
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import redis

DEFAULT_HOST: Final = "localhost"
DEFAULT_PORT: Final = 6379

_LEADING_ELSEWHERE: Final = frozenset({"host", "port", "path", "db"})
"""Query parameters that redis-py uses in place of the part of the URL with that name."""


def address_of(url: str) -> str:
    """Host and port, or socket, and number of the database. Equal texts: the same place.

    redis-py itself reads the URL, its query included. User, password, TLS and time limits do not belong to
    the place.
    """
    scheme, mark, rest = url.partition("://")
    try:
        pool = redis.ConnectionPool.from_url(f"{scheme.lower()}{mark}{rest}")
    except ValueError:  # it will not connect with this either
        parts = urlsplit(url)
        return json.dumps([parts.netloc.rpartition("@")[2], parts.path, _query(url)])
    given: dict[str, Any] = pool.connection_kwargs
    if scheme.lower() == "unix":
        place = [str(given.get("path"))]
    else:
        place = [_canonical(given.get("host") or DEFAULT_HOST), str(given.get("port") or DEFAULT_PORT)]
    return json.dumps([*place, int(given.get("db") or 0)])


def is_written_out(url: str) -> bool:
    """Whether the query of the URL does not change the address that the rest of the URL gives."""
    return not _query(url)


def _query(url: str) -> dict[str, list[str]]:
    given = parse_qs(urlsplit(url).query)
    return {name: values for name, values in given.items() if name in _LEADING_ELSEWHERE}


def _canonical(host: str) -> str:
    with suppress(ValueError):
        return str(ipaddress.ip_address(host))
    return host.lower()
