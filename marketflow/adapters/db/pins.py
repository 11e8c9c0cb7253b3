"""The settings of a session on the server.

A server, a database or a role may have defaults other than PostgreSQL's. So the settings that our statements
rely on are set on each new connection, in one round trip. They are not part of the startup message, since
PgBouncer refuses that.
"""

from __future__ import annotations

import threading
from typing import Final

import psycopg
import structlog

from marketflow.adapters.db import statements

log = structlog.get_logger()

STATEMENT_SHARE: Final = 0.9
"""The share of a call's time limit that the server gets as its statement timeout. So the server can report a
statement that takes too long (a locked table), and we keep the connection with its lock."""

# Always set, since our statements or psycopg rely on these values. `default_transaction_read_only` is not
# among them: providers set it when a disk is nearly full, and then nothing should be written.
_FIXED: Final = {
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "standard_conforming_strings": "on",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    # Otherwise an error or an idle time would end the session, and release the lock.
    "exit_on_error": "off",
    "idle_session_timeout": "0",
}
# Defaults, unless they are set for this role or database, or in the connection string. JIT compilation would
# cost more than any of our queries. The keepalives free our lock about 20 s after our host has vanished.
_DEFAULTS: Final = {
    "jit": "off",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "2",
}
_FOR_US: Final = ("client", "user", "database", "database user", "global")
"""The sources in pg_settings of values that were set for our role, database or client."""


class Pins:
    """The settings of all sessions of a store."""

    def __init__(self, timeout: float) -> None:
        """`timeout` of a call in seconds."""
        milliseconds = max(1, round(timeout * 1000))
        limits = {
            "statement_timeout": str(max(1, round(milliseconds * STATEMENT_SHARE))),
            "idle_in_transaction_session_timeout": str(milliseconds),
        }
        pins = [
            (name, value, kind)
            for kind, values in (("fixed", _FIXED), ("default", _DEFAULTS), ("limit", limits))
            for name, value in values.items()
        ]
        names, wanted, kinds = (list(column) for column in zip(*pins, strict=True))
        self._parameters = {"names": names, "wanted": wanted, "kinds": kinds, "for_us": [*_FOR_US]}
        self._mutex = threading.Lock()
        self._told: set[tuple[str, str]] = set()

    def set(self, connection: psycopg.Connection) -> None:
        """Set the settings of a connection; overridden settings of the user are logged once."""
        overridden = {
            name: (shown, ours)
            for name, shown, told, ours in connection.execute(statements.PIN, self._parameters)
            if told
        }
        self.tell(overridden)

    def tell(self, overridden: dict[str, tuple[str, str]]) -> None:
        """Log overridden settings, by name: the user's value, and the value used instead."""
        with self._mutex:
            new = {name: values for name, values in overridden.items() if (name, values[0]) not in self._told}
            self._told |= {(name, values[0]) for name, values in new.items()}
        if new:
            log.info(
                "settings of PostgreSQL overridden",
                **{name: f"{ours} instead of {theirs}" for name, (theirs, ours) in new.items()},
            )
