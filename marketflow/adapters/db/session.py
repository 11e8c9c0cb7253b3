"""One PostgreSQL connection at a time, used from worker threads, every call bounded.

psycopg cannot wait on Trio, and a thread cannot be cancelled. So a call runs in a thread that may be
abandoned; the connection's socket is then shut down, which always ends the thread's wait. After a failed call
a connection is used again only if it is idle; otherwise its state is unknown.

A call only raises the port's errors. Any other error of psycopg or Python, such as an unreadable value, makes
the store count as away: no answer of a server ends the service.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

import psycopg
import structlog
import trio

from marketflow.adapters.db.connecting import Connector
from marketflow.adapters.db.verdicts import reason, time_limit, usable
from marketflow.app.ports import RowsRefused, StoreAway, StoreTaken, StoreUnfit

log = structlog.get_logger()

T = TypeVar("T")

Prepare = Callable[[psycopg.Connection], object]

# One thread works; the others allow for abandoned threads, which end soon.
_THREADS: Final = 3


class _Link:
    """One connection from its beginning to its end.

    A thread may still use the connection when it is given up. The connection must not be freed then: its
    socket is shut down, and the thread closes it. An idle connection is closed at once.
    """

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._mutex = threading.Lock()
        self._connection: psycopg.Connection | None = None
        # A duplicate of the descriptor that only we close: libpq may close its own at any moment, and the
        # number could then belong to another file.
        self._plug: socket.socket | None = None
        self._in_use = False
        self._given_up = False
        self.prepared: Prepare | None = None
        """The `prepare` function that was run on the connection before its first call."""
        self.sound = False
        """Whether it may be used again although the last call failed."""

    def call(self, fn: Callable[[psycopg.Connection], T], prepare: Prepare | None, until: float) -> T:
        """Connect if necessary, and run `fn`. Called in a thread; `until` is a time of the monotonic clock.

        Raises:
            StoreAway, StoreTaken, StoreUnfit, RowsRefused: no other errors.
        """
        with self._mutex:
            self._in_use = True
        try:
            connection = self._connected(until)
            if prepare is not None and self.prepared is not prepare:
                prepare(connection)
                self.prepared = prepare
            return self._call(connection, fn)
        except (StoreAway, StoreTaken, StoreUnfit, RowsRefused):
            raise
        except Exception as error:
            log.debug("call to PostgreSQL failed", exc_info=error)
            raise StoreAway(reason(error, self._connector.password)) from error
        finally:
            with self._mutex:
                self._in_use = False
                if self._given_up:
                    self._close()

    def _call(self, connection: psycopg.Connection, fn: Callable[[psycopg.Connection], T]) -> T:
        try:
            return fn(connection)
        except Exception:
            self.sound = usable(connection)
            raise

    def give_up(self) -> None:
        """Give up the connection, and end the call of a thread that uses it. Does not wait."""
        with self._mutex:
            self._given_up = True
            if not self._in_use:
                self._close()
            elif self._plug is not None:
                try:
                    self._plug.shutdown(socket.SHUT_RDWR)
                except OSError:
                    return  # not connected any more, so there is nothing to end

    def alive(self) -> bool:
        """Whether an idle connection still exists, as far as the kernel knows. Does not wait."""
        if self._connection is None or self._connection.closed:
            return False
        try:
            # A server may send a message before it closes, so read that before looking for the end.
            self._connection.pgconn.consume_input()
            self._connection.pgconn.consume_input()
        except psycopg.Error:
            return False
        return True

    def _connected(self, until: float) -> psycopg.Connection:
        if self._connection is not None:
            return self._connection
        connection = self._connector.connect(until, lambda: not self._given_up)
        with self._mutex:
            self._connection = connection
            self._plug = socket.socket(fileno=os.dup(connection.fileno()))
            if self._given_up:
                raise StoreAway("given up while connecting")
        return connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._plug is not None:
            self._plug.close()


class Session:
    """A connection that is made when needed and replaced when broken; calls wait for their turn."""

    def __init__(self, connector: Connector, *, timeout: float, prepare: Prepare | None = None) -> None:
        """`timeout` in seconds; `prepare` runs on each new connection, as part of the call that needed it."""
        self._connector = connector
        self._timeout = timeout
        self._prepare = prepare
        self._link: _Link | None = None
        self._turn = trio.Lock()
        self._threads = trio.CapacityLimiter(_THREADS)
        self.connections = 0
        """The number of connections begun so far; it identifies the current one."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as the kernel knows. For use between calls."""
        return self._link is not None and self._link.alive()

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
                if self._link is not None and not self._link.alive():
                    self.close()
                if self._link is None:
                    if not connect:
                        raise StoreAway("not connected")
                    self.connections += 1
                    self._link = _Link(self._connector)
                link = self._link
                link.sound = False
                # A caller with a shorter limit cancels, which is not a failure of the store.
                left = ends - trio.current_time()
                try:
                    return await trio.to_thread.run_sync(
                        link.call,
                        fn,
                        self._prepare,
                        time.monotonic() + left,
                        abandon_on_cancel=True,
                        limiter=self._threads,
                    )
                except BaseException:
                    if not link.sound:
                        self._drop(link)
                    raise

    def take_over(self, other: Session) -> bool:
        """Take over the idle connection of another session; returns whether it had one."""
        if not other.connected:
            return False
        self.close()
        self._link, other._link = other._link, None
        self.connections += 1
        return True

    def close(self) -> None:
        """Drop the connection, even during a call. Does not wait."""
        if self._link is not None:
            self._drop(self._link)

    def _drop(self, link: _Link) -> None:
        link.give_up()
        if self._link is link:
            self._link = None
