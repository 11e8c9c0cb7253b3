"""One PostgreSQL connection at a time, used from worker threads, every call bounded.

psycopg cannot wait on Trio, and a thread cannot be cancelled. So a call runs in a thread that may be
abandoned; the connection's socket is then shut down, which always ends the thread's wait. After a failed call
a connection is used again only if it is idle; otherwise its state is unknown.

A call only raises the port's errors. Any other error of psycopg or Python, such as an unreadable value, makes
the store count as away: no answer of a server ends the service.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

import psycopg
import trio

from marketflow.adapters.db.connecting import Connector
from marketflow.adapters.db.one_connection import OneConnection, Prepare
from marketflow.adapters.db.verdicts import time_limit
from marketflow.app.ports import StoreAway

T = TypeVar("T")

# One thread works; the others allow for abandoned threads, which end soon.
_THREADS: Final = 3


class Session:
    """A connection that is made when needed and replaced when broken; calls wait for their turn."""

    def __init__(self, connector: Connector, *, timeout: float, prepare: Prepare | None = None) -> None:
        """`timeout` in seconds; `prepare` runs on each new connection, as part of the call that needed it."""
        self._connector = connector
        self._timeout = timeout
        self._prepare = prepare
        self._current: OneConnection | None = None
        self._turn = trio.Lock()
        self._threads = trio.CapacityLimiter(_THREADS)
        self.connections = 0
        """The number of connections begun so far; it identifies the current one."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as the kernel knows. For use between calls."""
        return self._current is not None and self._current.alive()

    @property
    def busy(self) -> bool:
        """Whether a call is under way."""
        return self._turn.locked()

    @property
    def threads(self) -> int:
        """The number of threads in use, including abandoned ones."""
        return self._threads.borrowed_tokens

    async def run(self, fn: Callable[[psycopg.Connection], T], *, connect: bool = True) -> T:
        """Run `fn` in a thread with the connection, which is in autocommit mode.

        If it is cancelled or out of time, it returns at once; then it is unknown whether the server did the
        work.

        Raises:
            StoreAway: the store failed, time ran out, or there is no connection and `connect` is false.
            StoreTaken, StoreUnfit, RowsRefused: what `fn` and `prepare` raise.
        """
        with time_limit(self._timeout):
            ends = trio.current_time() + self._timeout
            async with self._turn:
                if self._current is not None and not self._current.alive():
                    self.close()
                if self._current is None:
                    if not connect:
                        raise StoreAway("not connected")
                    self.connections += 1
                    self._current = OneConnection(self._connector)
                connection = self._current
                connection.sound = False
                # A caller with a shorter limit cancels, which is not a failure of the store.
                left = ends - trio.current_time()
                try:
                    return await trio.to_thread.run_sync(
                        connection.call,
                        fn,
                        self._prepare,
                        time.monotonic() + left,
                        abandon_on_cancel=True,
                        limiter=self._threads,
                    )
                except BaseException:
                    if not connection.sound:
                        self._drop(connection)
                    raise

    def take_over(self, other: Session) -> bool:
        """Take over the idle connection of another session; returns whether it had one."""
        if not other.connected:
            return False
        self.close()
        self._current, other._current = other._current, None
        self.connections += 1
        return True

    def close(self) -> None:
        """Drop the connection, even during a call. Does not wait."""
        if self._current is not None:
            self._drop(self._current)

    def _drop(self, connection: OneConnection) -> None:
        connection.give_up()
        if self._current is connection:
            self._current = None
