"""One PostgreSQL connection at a time, used from worker threads, every call bounded.

psycopg cannot wait on Trio, and a thread cannot be cancelled. So a call runs in a thread that may be left
behind, and the connection's socket is then shut down, which ends the thread's wait whatever the server does.
A connection on which a call failed is used again only if it was the server that said so and no transaction is
open: else nobody needs to know what state it is in.
"""

from __future__ import annotations

import math
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, TypeVar

import attrs
import psycopg
import trio
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus

from marketflow.app.ports import StoreAway

T = TypeVar("T")

# SQLSTATE classes that tell of the server's state, not of our SQL: connection (08), not let in (28, 3D, 3F),
# rolled back for others' sake (40), tables that somebody has changed or dropped, or privileges that he has
# taken (42, 0A: it is his to cure, and rows wait so long), out of resources (53), not ready or locked (55),
# operator (57: shutdown, start-up, statement timeout), system (58), configuration (F0), internal (XX).
_AWAY_CLASSES: Final = frozenset(
    {"08", "0A", "28", "3D", "3F", "40", "42", "53", "55", "57", "58", "F0", "XX"}
)
# Read-only: a standby, or a disk that filled up.
_AWAY_STATES: Final = frozenset({"25006"})
# Of class 42, SQL that no change of the tables makes wrong: syntax, a function that there is not.
_OUR_STATES: Final = frozenset({"42601", "42883"})

# One at work; the others are for threads left behind, which end soon after, and never for more at once.
_THREADS: Final = 3

# Settings of the connection, after the user's own, so that they hold. The server's keepalives let go of our
# lock some 20 s after our host vanished. Compiling (jit) would cost more than any of our queries.
_OPTIONS: Final = (
    "-c statement_timeout={statement} -c idle_in_transaction_session_timeout={milliseconds}"
    " -c TimeZone=UTC -c jit=off"
    " -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=2"
)


STATEMENT_SHARE: Final = 0.9
"""Of the time limit what the server has for a statement: so it can say that it takes too long (somebody holds
the table), and we keep the connection, and the lock with it."""


class NoAnswer(StoreAway):
    """It is not known whether the server will ever answer."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise NoAnswer when what is inside takes longer."""
    with trio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise NoAnswer(f"no answer within {seconds:g} s")


def connection_parameters(dsn: str, timeout: float) -> dict[str, Any]:
    """The parameters that every connection of ours is made with; `timeout` in seconds.

    Raises:
        ValueError: the dsn is none. The message does not repeat it, a password may be in it.
    """
    try:
        parameters: dict[str, Any] = dict(conninfo_to_dict(dsn))
    except psycopg.Error:
        raise ValueError("not a PostgreSQL connection string") from None
    milliseconds = max(1, round(timeout * 1000))
    options = _OPTIONS.format(
        milliseconds=milliseconds, statement=max(1, round(milliseconds * STATEMENT_SHARE))
    )
    return parameters | {
        "application_name": "marketflow",
        "client_encoding": "UTF8",
        "connect_timeout": max(1, math.ceil(timeout)),
        "keepalives": 1,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 2,
        "tcp_user_timeout": milliseconds,
        "options": f"{parameters.get('options') or ''} {options}".strip(),
    }


class _Link:
    """One connection from its making to its end, and who ends it.

    A thread may be in the middle of using it when it is given up, and must not have it freed under its hands:
    then the socket is shut down and the thread closes. An idle one is closed on the spot.
    """

    def __init__(
        self, parameters: dict[str, Any], prepare: Callable[[psycopg.Connection], object] | None
    ) -> None:
        self._parameters = parameters
        self._prepare = prepare
        self._mutex = threading.Lock()
        self._connection: psycopg.Connection | None = None
        # A duplicate of the descriptor, ours alone: libpq may close its own at any moment, and its number
        # would then be another's.
        self._plug: socket.socket | None = None
        self._in_use = False
        self._given_up = False
        self.sound = False
        """Whether it may be used again, though the last call has failed."""

    def call(self, fn: Callable[[psycopg.Connection], T]) -> T:
        """In a thread: connect unless connected, and run `fn`.

        Raises:
            StoreAway: the server is to blame.
            Exception: what `fn` and `prepare` raise.
        """
        with self._mutex:
            self._in_use = True
        try:
            return self._call(self._connected(), fn)
        except psycopg.Error as error:
            if _is_away(error, self._connection):
                raise StoreAway(self._reason(error)) from error
            raise
        finally:
            with self._mutex:
                self._in_use = False
                if self._given_up:
                    self._close()

    def _call(self, connection: psycopg.Connection, fn: Callable[[psycopg.Connection], T]) -> T:
        try:
            return fn(connection)
        except psycopg.Error:
            self.sound = connection.info.transaction_status is TransactionStatus.IDLE
            raise

    def give_up(self) -> None:
        """Never use it again, and end what a thread may be doing with it. Does not wait."""
        with self._mutex:
            self._given_up = True
            if not self._in_use:
                self._close()
            elif self._plug is not None:
                try:
                    self._plug.shutdown(socket.SHUT_RDWR)
                except OSError:
                    return  # Not connected any more: nothing to end.

    def alive(self) -> bool:
        """Whether an idle connection is still there, as far as the kernel knows. Does not wait."""
        if self._connection is None or self._connection.closed:
            return False
        try:
            # A server that leaves may say so first; the end of the stream is only met after that.
            self._connection.pgconn.consume_input()
            self._connection.pgconn.consume_input()
        except psycopg.OperationalError:
            return False
        return True

    def _connected(self) -> psycopg.Connection:
        if self._connection is not None:
            return self._connection
        try:
            connection = psycopg.connect(**self._parameters, autocommit=True)
            with self._mutex:
                self._connection = connection
                self._plug = socket.socket(fileno=os.dup(connection.fileno()))
                if self._given_up:
                    raise StoreAway("given up while connecting")
        except OSError as error:
            raise StoreAway(self._reason(error)) from error
        if self._prepare is not None:
            self._prepare(connection)
        return connection

    def _reason(self, error: Exception) -> str:
        text = " ".join(str(error).split()) or type(error).__name__
        password = self._parameters.get("password")
        return text.replace(password, "***") if password else text

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._plug is not None:
            self._plug.close()


class Session:
    """A connection that is made when needed and replaced when broken; calls wait for their turn."""

    def __init__(
        self,
        parameters: dict[str, Any],
        *,
        timeout: float,
        prepare: Callable[[psycopg.Connection], object] | None = None,
    ) -> None:
        """`timeout` in seconds; `prepare` runs on each new connection, as part of the call that needed it."""
        self._parameters = parameters
        self._timeout = timeout
        self._prepare = prepare
        self._link: _Link | None = None
        self._turn = trio.Lock()
        self._threads = trio.CapacityLimiter(_THREADS)
        self.connections = 0
        """How many were begun so far: tells one connection from the next."""

    async def run(self, fn: Callable[[psycopg.Connection], T], *, connect: bool = True) -> T:
        """Run `fn` in a thread with the connection, which is in autocommit mode.

        Cancelled, or out of time, it returns at once; whether the server did the work is unknown then.

        Raises:
            StoreAway: the server failed, or time ran out; or there is no connection and `connect` is false.
            Exception: what `fn` and `prepare` raise, psycopg.Error only where our SQL is to blame.
        """
        with time_limit(self._timeout):
            async with self._turn:
                if self._link is not None and not self._link.alive():
                    self.close()
                if self._link is None:
                    if not connect:
                        raise StoreAway("not connected")
                    self.connections += 1
                    self._link = _Link(self._parameters, self._prepare)
                link = self._link
                link.sound = False
                try:
                    return await trio.to_thread.run_sync(
                        link.call, fn, abandon_on_cancel=True, limiter=self._threads
                    )
                except BaseException:
                    if not link.sound:
                        self.close()
                    raise

    def close(self) -> None:
        """Drop the connection, also in the middle of a call. Does not wait."""
        link, self._link = self._link, None
        if link is not None:
            link.give_up()


@attrs.frozen
class Backend:
    """The server's process that serves a connection. Its number alone may be given to another later."""

    pid: int
    started_at: datetime


def try_lock(connection: psycopg.Connection, key: int) -> Backend | None:
    """Take the database's advisory lock for this connection, and tell who has it then. None: it is taken."""
    row = connection.execute(
        "SELECT pg_try_advisory_lock(%s), pid, backend_start FROM pg_stat_activity"
        " WHERE pid = pg_backend_pid()",
        [key],
    ).fetchone()
    return Backend(row[1], row[2]) if row and row[0] else None


def unlock(connection: psycopg.Connection, key: int) -> None:
    """Give the lock back now, not some time after the connection was closed."""
    connection.execute("SELECT pg_advisory_unlock(%s)", [key])


def end(connection: psycopg.Connection, backend: Backend) -> bool:
    """End another connection's process, of the same account; whether it is gone, after a second at most."""
    row = connection.execute(
        "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE (pid, backend_start) = (%s, %s)",
        [backend.pid, backend.started_at],
    ).fetchone()
    return row is None or bool(row[0])


def _is_away(error: psycopg.Error, connection: psycopg.Connection | None) -> bool:
    """Whether the server is to blame. Anything else is a bug of ours and must show."""
    if connection is None or connection.closed:
        return True
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    if error.sqlstate in _OUR_STATES:
        return False
    return error.sqlstate[:2] in _AWAY_CLASSES or error.sqlstate in _AWAY_STATES
