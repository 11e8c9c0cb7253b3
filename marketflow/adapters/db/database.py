"""The connections to a database of aggregates: one that writes rows and has the lock, and a few that read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import psycopg

from marketflow.adapters.db.connecting import Connector
from marketflow.adapters.db.hosts import Hosts
from marketflow.adapters.db.lock import Lock
from marketflow.adapters.db.locked_session import LockedSession
from marketflow.adapters.db.parameters import connection_parameters
from marketflow.adapters.db.pins import Pins
from marketflow.adapters.db.readers import Readers
from marketflow.adapters.db.rows import StoredRows
from marketflow.adapters.db.session import Session
from marketflow.adapters.db.verdicts import NoAnswer
from marketflow.app.ports import StoreAway

T = TypeVar("T")

READERS: Final = 4


class Database:
    """A database of aggregates. Nothing connects before it is used.

    All calls end within `timeout`. They only raise the errors of the ports.
    """

    def __init__(self, dsn: str, *, interval: int, timeout: float, lock: Lock) -> None:
        """`interval` of the aggregates in ms, `timeout` of a call in seconds.

        Raises:
            ValueError: the dsn is not valid.
        """
        self._dsn = dsn
        self._interval = interval
        self._lock = lock
        self._hosts = Hosts()
        parameters, pins = connection_parameters(dsn, timeout), Pins(timeout)
        reading = Connector(parameters, self._hosts, pins)
        readers = Readers([Session(reading, timeout=timeout) for _ in range(READERS)], timeout)
        self.rows: Final = StoredRows(readers, interval)
        """Answers questions. The lock is not needed."""
        self.writing: Final = self._locked(Connector(parameters, self._hosts, pins, writes=True), timeout)
        """Writes rows."""

    def session(self, timeout: float) -> LockedSession:
        """A further session that writes; `timeout` of a call in seconds. The caller closes it."""
        parameters = connection_parameters(self._dsn, timeout)
        return self._locked(Connector(parameters, self._hosts, Pins(timeout), writes=True), timeout)

    def _locked(self, connector: Connector, timeout: float) -> LockedSession:
        return LockedSession(
            connector,
            timeout=timeout,
            lock=self._lock,
            interval=self._interval,
            readers=self.rows.readers,
        )

    @property
    def threads(self) -> int:
        """The number of threads in use, including abandoned ones."""
        return self.writing.threads + self.rows.readers.threads

    async def lease(self, look: Callable[[psycopg.Connection], T]) -> tuple[int, T]:
        """Make sure that rows can be written; returns the number of the connection, and what `look` returns.

        Raises:
            SchemaTooNew: the database was migrated by a newer marketflow.
        """
        try:
            found = await self.writing.run_locked(look)
        except NoAnswer as error:
            self.rows.hangs = str(error)
            raise
        except StoreAway:
            self.rows.hangs = None
            raise
        self.rows.hangs = None
        self.rows.made = True
        return self.writing.connections, found

    async def close(self) -> None:
        """Release the lock and close all connections; takes at most a second."""
        await self.writing.close()
        self.rows.readers.close()
