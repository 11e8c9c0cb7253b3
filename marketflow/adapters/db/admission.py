"""What is checked on a new connection before anything is written over it."""

from __future__ import annotations

from typing import Final

import psycopg

from marketflow.adapters.db.connecting import Connector
from marketflow.adapters.db.last_use import note_use
from marketflow.adapters.db.lock import POOLED, Backend, Lock, end, holds, is_of_nodes, is_shared, try_lock
from marketflow.adapters.db.migrations import migrate
from marketflow.app.ports import IntervalMismatch, StoreAway, StoreTaken, StoreUnfit

OLDEST_SERVER: Final = 14
"""The oldest major version of PostgreSQL that has everything we use (`date_bin`)."""
OF_NODES: Final = "nodes of a cluster are running on this database"
OF_A_SINGLE_SERVICE: Final = "a marketflow that is no node of a cluster is running on this database"

_INTERVAL: Final = "aggregation.interval"


class Admission:
    """Takes the lock of the database with each new connection of one session, and checks the schema."""

    def __init__(self, connector: Connector, *, lock: Lock, interval: int) -> None:
        """`interval` of the aggregates in ms."""
        self.lock: Final = lock
        self._connector = connector
        self._interval = interval
        self._backend: Backend | None = None
        """The server process that last had the lock for us."""

    def admit(self, connection: psycopg.Connection) -> None:
        """Prepare a new connection for writing. Called in a thread.

        Raises:
            StoreTaken, StoreUnfit, SchemaTooNew, psycopg.Error
        """
        version = connection.info.server_version // 10_000
        if version < OLDEST_SERVER:
            raise StoreUnfit(f"PostgreSQL {version} is too old: it must be {OLDEST_SERVER} or newer")
        if is_shared(connection, self._connector):
            # At the start ending loses nothing. Later the service goes on from memory until the pooler pools
            # sessions again.
            raise StoreUnfit(POOLED) if self._backend is None else StoreAway(POOLED)
        self._backend = self._locked(connection)
        migrate(connection)
        self._check_interval(connection)
        if not self.lock.moving:
            note_use(connection, "nodes of a cluster" if self.lock.shared else "a single service")

    def holds(self, connection: psycopg.Connection) -> bool:
        """Whether the connection still has the lock. Called in a thread."""
        return self._backend is not None and holds(connection, self.lock, self._backend)

    def _locked(self, connection: psycopg.Connection) -> Backend:
        """Take the lock."""
        backend = try_lock(connection, self.lock)
        # If it was busy, the process of our former connection may not have noticed the disconnect, and still
        # have the lock.
        former = None if self.lock.shared else self._backend
        if backend is None and former is not None and end(connection, former):
            backend = try_lock(connection, self.lock)
        if backend is not None:
            return backend
        if self.lock.shared:
            raise StoreTaken(OF_A_SINGLE_SERVICE)
        raise StoreTaken(OF_NODES) if is_of_nodes(connection, self.lock) else StoreTaken

    def _check_interval(self, connection: psycopg.Connection) -> None:
        # Written on every connection, so that a read-only server is detected here.
        connection.execute(
            "INSERT INTO marketflow_settings (name, value) VALUES (%s, %s) ON CONFLICT DO NOTHING",
            [_INTERVAL, str(self._interval)],
        )
        query = "SELECT value::bigint FROM marketflow_settings WHERE name = %s"
        row = connection.execute(query, [_INTERVAL]).fetchone()
        if row and row[0] != self._interval:
            raise IntervalMismatch(row[0], self._interval)
