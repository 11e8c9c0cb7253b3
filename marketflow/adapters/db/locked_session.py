"""A session that has the lock of the database with each of its connections.

The lock is taken while connecting. So being connected and having the lock is one state, and nothing is
written without it. It needs PostgreSQL 14 or newer, without a transaction pooler in between, since the lock
belongs to the session.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

import psycopg
import trio

from marketflow.adapters.db.admission import Admission
from marketflow.adapters.db.connecting import Connector
from marketflow.adapters.db.lock import Lock, unlock
from marketflow.adapters.db.readers import Readers
from marketflow.adapters.db.session import Session
from marketflow.adapters.db.verdicts import NoAnswer
from marketflow.app.ports import StoreAway

T = TypeVar("T")

UNLOCK_SECONDS: Final = 1.0
LOAN_SECONDS: Final = 5.0
"""The least time between two loans of a reader's connection, if the server refuses a new one."""


class LockedSession:
    """Writes to the database. Readers lend it a connection if the server refuses it a new one."""

    def __init__(
        self, connector: Connector, *, timeout: float, lock: Lock, interval: int, readers: Readers
    ) -> None:
        """`timeout` of a call in seconds, `interval` of the aggregates in ms."""
        self._admission = Admission(connector, lock=lock, interval=interval)
        self._session = Session(connector, timeout=timeout, prepare=self._admission.admit)
        self._readers = readers
        self._next_loan = 0.0
        """When a reader's connection may be borrowed again (seconds of Trio's clock)."""

    @property
    def connections(self) -> int:
        """The number of connections begun so far; it identifies the current one."""
        return self._session.connections

    @property
    def threads(self) -> int:
        """The number of threads in use, including abandoned ones."""
        return self._session.threads

    async def run(self, fn: Callable[[psycopg.Connection], T]) -> T:
        """Connect if necessary, and run `fn`, see `Session.run`."""
        connections = self.connections
        try:
            found = await self._session.run(fn)
        except NoAnswer:
            raise
        except StoreAway:
            self._borrow()
            raise
        if self.connections != connections:
            # Another server may have taken over. Connections to the former one may answer with older rows.
            self._readers.renew()
        return found

    async def run_connected(self, fn: Callable[[psycopg.Connection], T]) -> T:
        """Run `fn` if there is a connection; otherwise the store is away."""
        return await self._session.run(fn, connect=False)

    async def run_locked(self, fn: Callable[[psycopg.Connection], T]) -> T:
        """Connect if necessary, make sure that the connection still has the lock, and run `fn`."""

        def check(connection: psycopg.Connection) -> tuple[T] | None:
            return (fn(connection),) if self._admission.holds(connection) else None

        found = await self.run(check)
        if found is None:
            # The next connection will find the reason, and whether another service used the store meanwhile.
            self._session.close()
            raise StoreAway("the server has taken the lock from our connection, perhaps a pooler has")
        return found[0]

    async def close(self) -> None:
        """Release the lock and close the connection; takes at most a second, also if it is cancelled."""
        with trio.move_on_after(UNLOCK_SECONDS, shield=True), suppress(StoreAway):
            # Closing would release it too, but only after a while, for which a successor would have to wait.
            await self.run_connected(lambda connection: unlock(connection, self._admission.lock))
        self._session.close()

    def _borrow(self) -> None:
        """If the server refuses a connection, let the next call use a reader's.

        This is done rarely: the refusal may have other reasons, and questions lose that reader.
        """
        if self._session.busy or self._session.connected or trio.current_time() < self._next_loan:
            return
        if any(self._session.take_over(session) for session in self._readers.spare()):
            self._next_loan = trio.current_time() + LOAN_SECONDS
