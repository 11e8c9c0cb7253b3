"""The parameters of a connection string, including libpq's environment variables and service files."""

from __future__ import annotations

from typing import Any, Final

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from marketflow.app.ports import StoreUnfit

# Our defaults. All values of the user override them, except the encoding, since psycopg must be able to read
# every answer. `options` is left to the user: PgBouncer refuses a connection with it.
_DEFAULTS: Final[dict[str, Any]] = {
    "fallback_application_name": "marketflow",
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
}
_FIXED: Final = {"client_encoding": "UTF8"}

WRITABLE: Final = frozenset({"any", "read-write", "primary"})
"""The values of target_session_attrs that allow a server that accepts writes."""


def connection_parameters(dsn: str, timeout: float) -> dict[str, Any]:
    """The parameters of all our connections; `timeout` in seconds.

    Raises:
        ValueError: the dsn is not valid. The message does not repeat it, since it may contain a password.
    """
    try:
        parameters: dict[str, Any] = dict(conninfo_to_dict(dsn))
        given = effective(parameters)
    except (psycopg.Error, ValueError):
        raise ValueError("not a PostgreSQL connection string") from None
    ours = _DEFAULTS | {"tcp_user_timeout": max(1, round(timeout * 1000))}
    return parameters | {name: value for name, value in ours.items() if name not in given} | _FIXED


def effective(parameters: dict[str, Any]) -> dict[str, str]:
    """All parameters as libpq resolves them, including those from the environment and the service file.

    Empty if libpq fails earlier, for example because the service file is missing. Connecting then gives the
    reason.
    """
    # libpq shows resolved parameters only for a connection. An impossible value stops this connection after
    # all parameters were resolved, and before a name is looked up or a server connected to.
    impossible = make_conninfo(**(parameters | {"channel_binding": "?"}))
    found = pq.PGconn.connect_start(impossible.encode()).info
    return {
        option.keyword.decode(): option.val.decode()
        for option in found
        if option.val is not None and option.keyword != b"channel_binding"
    }


def check_target(given: dict[str, str]) -> None:
    """Check that target_session_attrs does not exclude every server that accepts writes.

    Raises:
        StoreUnfit: it does.
    """
    target = given.get("target_session_attrs", "any")
    if target not in WRITABLE:
        allowed = ", ".join(sorted(WRITABLE))
        raise StoreUnfit(f"target_session_attrs is {target}, but rows must be written: use one of {allowed}")
