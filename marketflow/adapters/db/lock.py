"""The advisory lock that keeps a second service off a database. It belongs to a session's server process.

A service on a single machine has it alone. The nodes of a cluster share it, so that they keep such a service
off, and are kept off by it.
"""

from __future__ import annotations

import hashlib
import select
import time
from contextlib import closing
from typing import Final

import attrs
import psycopg
from psycopg import pq

from marketflow.adapters.db.connecting import Connector
from marketflow.app.ports import Scope, StoreAway

LOCK: Final = 0x6D61726B6574666C
"""The key of the advisory lock ("marketfl")."""

_PROBE_SECONDS: Final = 1.0

POOLED: Final = (
    "the connection goes through a pooler that shares the server's processes among clients (transaction or"
    " statement pooling), so that the lock on the database cannot be held:"
    " use session pooling or connect directly"
)


def lock_of(scope: Scope) -> int:
    """The key of a scope's advisory lock, a bigint."""
    if not scope.name:
        return LOCK
    digest = hashlib.blake2b(f"marketflow {scope.name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)


@attrs.frozen
class Lock:
    """An advisory lock, and how it is wanted."""

    key: int
    """A bigint."""
    shared: bool = False
    """Whether others may have it too, if they want it shared as well."""
    moving: bool = False
    """Whether it is had only to move what is in Redis."""


@attrs.frozen
class Backend:
    """The server process of a connection. Its start time is included, since process ids are reused."""

    pid: int
    started_at: int
    """Unix time in microseconds."""


def try_lock(connection: psycopg.Connection, lock: Lock) -> Backend | None:
    """Take the advisory lock; returns the server process of this connection, None if another has the lock."""
    row = connection.execute(
        "SELECT CASE WHEN %(shared)s THEN pg_try_advisory_lock_shared(%(key)s)"
        " ELSE pg_try_advisory_lock(%(key)s) END,"
        " pid, (extract(epoch FROM backend_start) * 1000000)::bigint"
        " FROM pg_stat_activity WHERE pid = pg_backend_pid()",
        attrs.asdict(lock),
    ).fetchone()
    return Backend(row[1], row[2]) if row and row[0] else None


def holds(connection: psycopg.Connection, lock: Lock, backend: Backend) -> bool:
    """Whether this process still serves the connection and still has the lock."""
    row = connection.execute(
        "SELECT pg_backend_pid() = %s AND EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory'"
        " AND pid = pg_backend_pid() AND objsubid = 1 AND granted"
        " AND ((classid::bigint << 32) | objid::bigint) = %s)",
        [backend.pid, lock.key],
    ).fetchone()
    return row == (True,)


def is_of_nodes(connection: psycopg.Connection, lock: Lock) -> bool:
    """Whether nodes of a cluster have the lock."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND objsubid = 1 AND granted AND ((classid::bigint << 32) | objid::bigint) = %s)",
        [lock.key],
    ).fetchone()
    return row == (True,)


def unlock(connection: psycopg.Connection, lock: Lock) -> None:
    """Release the lock now. Closing the connection would release it only after a while."""
    connection.execute(
        "SELECT CASE WHEN %(shared)s THEN pg_advisory_unlock_shared(%(key)s)"
        " ELSE pg_advisory_unlock(%(key)s) END",
        attrs.asdict(lock),
    )


def end(connection: psycopg.Connection, backend: Backend) -> bool:
    """Terminate another process of our account; returns whether it ended within a second."""
    row = connection.execute(
        "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity"
        " WHERE pid = %s AND (extract(epoch FROM backend_start) * 1000000)::bigint = %s",
        [backend.pid, backend.started_at],
    ).fetchone()
    return row is None or bool(row[0])


def is_shared(connection: psycopg.Connection, connector: Connector) -> bool:
    """Whether a pooler shares the server process of the connection with other clients.

    If the process is not the one that was announced at connecting, there is a pooler. Then a second client
    begins a transaction. If it gets the process of the first, or blocks it, they share the process.
    """
    own = _pid(connection)
    if own == connection.info.backend_pid:
        return False
    until = time.monotonic() + _PROBE_SECONDS
    try:
        other = connector.connect(until, pinned=False)
    except StoreAway:
        return False  # a second client gets no connection, so the process is not shared
    with closing(other):
        state, others = _begin(other.pgconn, until)
        if state == "08P01":  # Transactions are refused: this is statement pooling.
            return True
        if others is None:  # it waits for a process, so it cannot get ours
            return False
        return others == own or _pid(connection) != own


def _pid(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    return int(row[0]) if row else 0


def _begin(pgconn: pq.abc.PGconn, until: float) -> tuple[str | None, int | None]:
    """Begin a transaction; returns the SQLSTATE of an error, and the serving process if it answers."""
    pgconn.send_query(b"BEGIN; SELECT pg_backend_pid()")
    poll = select.poll()
    poll.register(pgconn.socket, select.POLLIN)
    state, pid = None, None
    while True:
        pgconn.flush()
        while not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:
                return state, pid
            field = result.error_field(pq.DiagnosticField.SQLSTATE)
            state = field.decode() if field else state
            value = result.get_value(0, 0) if result.ntuples else None
            pid = int(value) if value else pid
        if not poll.poll(max(0, round((until - time.monotonic()) * 1_000))):
            return state, pid
        try:
            pgconn.consume_input()
        except psycopg.OperationalError:
            return state, pid
