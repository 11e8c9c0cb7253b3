"""Finds out which database a connection string leads to, so that two databases are never mistaken for one."""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import zip_longest
from typing import Any, Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import PGconn

DEFAULT_PORT: Final = "5432"

_WORD: Final = re.compile(r"(?:\\.|[^\s\\])+", re.DOTALL)
"""A word of `options`: a backslash escapes a blank."""
_SETTINGS_OF_PLACE: Final = frozenset({"search_path", "role", "session_authorization"})
"""Settings of a session that decide in which schema our tables are."""
_UNRESOLVED: Final = {"sslmode": "unresolved"}
"""Not a valid value, so libpq resolves all parameters but then does not connect."""


def address_of(dsn: str) -> str:
    """The place of the tables as text: servers, database, user and schema. Equal texts mean the same place.

    libpq itself resolves service files, variables such as `PGHOST`, and its defaults. The user is part of the
    place: by default `search_path` begins with the schema of that name, and some poolers choose the database
    by it. Passwords, certificates and time limits are not part of it.
    """
    found = _resolved(dsn)
    if found["dbname"] is None:  # for example, the service is not defined; connecting would fail too
        given: Mapping[str, Any] = conninfo_to_dict(dsn)
        names = ("service", "host", "hostaddr", "port", "dbname", "user", "options")
        return json.dumps([given.get(name) for name in names] + [os.environ.get("PGSERVICE")])
    settings = dict(_settings_of_place(found["options"] or ""))
    return json.dumps([sorted(_servers(found)), found["dbname"], found["user"], sorted(settings.items())])


def is_written_out(dsn: str) -> bool:
    """Whether the connection string alone determines the server and the database."""
    given = conninfo_to_dict(dsn)
    elsewhere = any(given.get(name) for name in ("service", "hostaddr")) or any(
        os.environ.get(name) for name in ("PGSERVICE", "PGHOSTADDR")
    )
    has_port = bool(given.get("port")) or not os.environ.get("PGPORT")
    in_schema = any(_settings_of_place(str(given.get("options") or os.environ.get("PGOPTIONS") or "")))
    return bool(given.get("host") and given.get("dbname") and has_port) and not elsewhere and not in_schema


def _resolved(dsn: str) -> Mapping[str, str | None]:
    """All parameters that libpq would connect with."""
    conninfo = make_conninfo("", **{**conninfo_to_dict(dsn), **_UNRESOLVED})
    connection = PGconn.connect_start(conninfo.encode())
    try:
        return {
            option.keyword.decode(): None if option.val is None else option.val.decode(errors="replace")
            for option in connection.info
        }
    finally:
        connection.finish()


def _servers(found: Mapping[str, str | None]) -> Iterator[tuple[str, str, str]]:
    """Host, address and port of each server; several hosts may share one port."""
    hosts, addresses, ports = ((found[name] or "").split(",") for name in ("host", "hostaddr", "port"))
    if len(ports) == 1:
        ports *= max(len(hosts), len(addresses))
    for host, address, port in zip_longest(hosts, addresses, ports, fillvalue=""):
        yield _canonical(host), _canonical(address), port or DEFAULT_PORT


def _canonical(host: str) -> str:
    with suppress(ValueError):
        return str(ipaddress.ip_address(host))
    return host if host.startswith("/") else host.lower()


def _settings_of_place(options: str) -> Iterator[tuple[str, str]]:
    """The parts of `options` that decide where the tables are, by name.

    Words that are not settings are kept too: some providers choose the database by one (`endpoint=...`).
    """
    words = iter(_WORD.findall(options))
    for word in words:
        given = f"-c{next(words, '')}" if word == "-c" else word
        name, _, value = re.sub(r"\\(.)", r"\1", given).partition("=")
        if not name.startswith(("-c", "--")):
            yield name, value
        elif (setting := name[2:].lower().replace("-", "_")) in _SETTINGS_OF_PLACE:
            yield setting, value
