"""Connections to Redis, used from threads: redis-py has no Trio support.

Every call is bounded. Every failure is StoreAway: connections that are refused or break, no answer in time,
error replies (out of memory, read-only, loading), and any other error of redis-py.

A thread cannot be cancelled, so each kind of work has its own way of ending in time:
- Connecting includes looking up a host name, for which no limit can be set. Its thread is left behind, at
  most `OPENERS` of them at a time, and what it comes to have made is closed.
- A write is never left behind: it could take effect after its caller got an error. Past its time
  limit its socket is shut down, which ends the thread's wait, and the end of the thread is awaited.
- A read is left behind, and its socket is shut down.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, TypeVar

import redis
import trio

from marketflow.adapters.cache.url import Access, access_of
from marketflow.app.ports import StoreAway

T = TypeVar("T")
Command = tuple[object, ...]
Ask = Callable[[Sequence[Command]], list[Any]]
"""Sends commands in one go and returns their replies; an error reply is raised."""

READERS: Final = 4
"""Questions that read at a time."""
OPENERS: Final = 4
"""Threads that connect at a time, those that were left behind included."""
MOST_SLACK: Final = 1.0
"""Seconds past its time limit (but no more than that again) after which a write is cut off.

The socket's own limits end nearly all of them before. They start again with each byte that comes in or, with
TLS, goes out, so that a peer which is slow enough never meets them."""
ENDING_SECONDS: Final = 1.0
"""How long the end of a thread is waited for whose socket was shut down."""


class _Stale(Exception):
    """The connection was not used for a while, and cannot be used any more. Nothing was sent."""


class _Opening:
    """A connection that a thread is making, and that may be given up meanwhile."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._mutex = threading.Lock()
        self._made: Any = None
        self._given_up = False

    def connect(self) -> Any:
        """In the thread: make the connection. Closed at once if it was given up meanwhile."""
        connection = self._make()
        connection.connect()
        with self._mutex:
            if self._given_up:
                connection.disconnect()
            self._made = connection
        return connection

    def give_up(self) -> None:
        """Nobody takes the connection: close it, or have the thread close it."""
        with self._mutex:
            self._given_up = True
            if self._made is not None:
                self._made.disconnect()


class Connections:
    """Calls to one Redis: one at a time that writes, and a few that read."""

    def __init__(self, access: Access, timeout: float) -> None:
        """The timeout in seconds."""
        self._access = access
        self._timeout = timeout
        self._openers = trio.CapacityLimiter(OPENERS)
        self._writers = trio.CapacityLimiter(1)
        self._writing: Any = None
        """The connection that writes, None if there is none yet, or none any more."""
        self._awaited: list[int] = []
        """How many replies to each post are to come."""
        self._turns = trio.Semaphore(READERS)
        self._readers = trio.CapacityLimiter(READERS)
        self._idle: list[Any] = []
        """Connections that have read, and nobody uses."""

    def close(self) -> None:
        """Close all connections."""
        if self._writing is not None:
            self._idle.append(self._writing)
        for connection in self._idle:
            connection.disconnect()

    # ---- writing ----

    async def post(self, data: Sequence[bytes], replies: int) -> list[list[Any]]:
        """Send commands that are encoded already, with so many replies.

        Returns the replies to each of the posts before it, error replies among them as ResponseError. Redis
        then has something to do all the time.
        """

        def post() -> list[list[Any]]:
            self._writing.send_packed_command(data)
            earlier = self._awaited_replies()
            self._awaited.append(replies)
            return earlier

        return await self._in_turn(post)

    async def write(self, data: Sequence[bytes], replies: int) -> list[list[Any]]:
        """The same. Returns the replies to these commands as well, with one hop to a thread less."""

        def write() -> list[list[Any]]:
            self._writing.send_packed_command(data)
            self._awaited.append(replies)
            return self._awaited_replies()

        return await self._in_turn(write)

    async def collect(self) -> list[list[Any]]:
        """Returns the replies to each of the posts that had none yet."""
        return await self._in_turn(self._awaited_replies) if self._awaited else []

    def _awaited_replies(self) -> list[list[Any]]:
        awaited, self._awaited = self._awaited, []
        return [self._replies(self._writing, count) for count in awaited]

    async def _in_turn(self, call: Callable[[], T]) -> T:
        def write() -> T:
            try:
                if not self._awaited:  # Between two writes anything may have happened to it.
                    _check(self._writing)
                return call()
            except BaseException:
                self._awaited = []
                self._writing.disconnect()
                raise

        try:
            if self._writing is not None:
                return await self._cut_off_in_time(write)
        except _Stale:
            self._writing = None
        self._writing = await self._open()
        try:
            return await self._cut_off_in_time(write)
        except _Stale:
            raise StoreAway("the connection ended as soon as it was made") from None

    async def _cut_off_in_time(self, write: Callable[[], T]) -> T:
        """Write in a thread, past every cancellation; the thread has ended when this returns."""
        writing, limit = self._writing, self._timeout + min(self._timeout, MOST_SLACK)
        with trio.move_on_after(limit, shield=True):
            try:
                return await self._in_thread(write, self._writers)
            except BaseException:
                self._writing = None
                raise
        writing.disconnect()
        with trio.move_on_after(ENDING_SECONDS, shield=True):
            async with self._writers:
                pass
        raise StoreAway("no answer in time")

    # ---- reading ----

    async def read(self, commands: Sequence[Command], read: Callable[[list[Any]], T]) -> T:
        """Ask in one go; `read` makes sense of the replies, in the thread too, since there may be many."""
        return await self.converse(lambda ask: read(ask(commands)))

    async def converse(self, talk: Callable[[Ask], T]) -> T:
        """Run `talk` in a thread with a connection of its own, on which it may ask several times.

        The time limit covers the wait for a turn: with Redis hanging nobody stands in line for everybody's.
        """
        with trio.move_on_after(self._timeout):
            async with self._turns:
                return await self._talk(talk)
        raise StoreAway("no answer in time")

    async def _talk(self, talk: Callable[[Ask], T]) -> T:
        while self._idle:
            try:
                return await self._talk_on(self._idle.pop(), talk)
            except _Stale:
                continue
        try:
            return await self._talk_on(await self._open(), talk)
        except _Stale:
            raise StoreAway("the connection ended as soon as it was made") from None

    async def _talk_on(self, connection: Any, talk: Callable[[Ask], T]) -> T:
        """After a failure of any kind, a cancellation too, the connection is thrown away."""

        def run() -> T:
            _check(connection)
            return talk(partial(self._ask, connection))

        try:
            result = await self._in_thread(run, self._readers)
        except BaseException:
            connection.disconnect()
            raise
        self._idle.append(connection)
        return result

    def _ask(self, connection: Any, commands: Sequence[Command]) -> list[Any]:
        if not commands:
            return []
        connection.send_packed_command(connection.pack_commands(commands))
        replies = self._replies(connection, len(commands))
        for reply in replies:
            if isinstance(reply, redis.ResponseError):
                raise reply
        return replies

    # ---- both ----

    def _replies(self, connection: Any, count: int) -> list[Any]:
        """So many replies. The time limit is for all of them: each alone would be within the socket's."""
        deadline = time.monotonic() + self._timeout
        replies: list[Any] = []
        for _ in range(count):
            try:
                replies.append(connection.read_response(disconnect_on_error=False))
            except redis.ResponseError as error:
                replies.append(error)
            if time.monotonic() > deadline:
                raise redis.TimeoutError("the answer took too long")
        return replies

    async def _open(self) -> Any:
        """A new connection.

        Raises:
            StoreAway
        """
        opening = _Opening(self._access.make)
        try:
            with trio.move_on_after(self._timeout):
                return await self._in_thread(opening.connect, self._openers)
        except BaseException:
            opening.give_up()
            raise
        opening.give_up()
        raise StoreAway("no connection in time: the host's name is not found out, or nobody answers there")

    async def _in_thread(self, call: Callable[[], T], limiter: trio.CapacityLimiter) -> T:
        try:
            return await trio.to_thread.run_sync(call, limiter=limiter, abandon_on_cancel=True)
        except (StoreAway, _Stale):
            raise
        except (redis.RedisError, OSError) as error:
            raise StoreAway(self.reason(error)) from error
        except Exception as error:  # An answer that is none, a name that is none: redis-py lets them through.
            reason = f"unexpected answer ({type(error).__name__}: {self.reason(error)})"
            raise StoreAway(reason) from error

    def reason(self, error: Exception) -> str:
        """What an error says, without secrets."""
        # Of a command that it does not know, Redis repeats the arguments: those of AUTH are the password.
        text, _, _ = str(error).partition(", with args beginning with")
        for secret in self._access.secrets:
            text = text.replace(secret, "***")
        return text or type(error).__name__


def _check(connection: Any) -> None:
    """Raise _Stale if a connection from which no reply is awaited was closed, or has something to say."""
    try:
        sound = connection.is_connected and not connection.can_read()
    except redis.RedisError:
        sound = False
    if not sound:
        raise _Stale


@asynccontextmanager
async def open_connections(url: str, timeout: float) -> AsyncIterator[Connections]:
    """Connections to a Redis URL, made when needed; closed on leaving. The timeout in seconds.

    Raises:
        ValueError: the URL is none, or has options that are not allowed.
    """
    connections = Connections(access_of(url, timeout), timeout)
    try:
        yield connections
    finally:
        connections.close()
