"""Connections to Redis, used from threads: redis-py has no Trio support.

Every call is bounded, looking up a host name by the resolver's own limits. Every failure is StoreAway:
connections refused or broken, no answer in time, and error replies too (out of memory, read-only, loading),
since none of them took what was asked.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import redis
import trio
from redis.backoff import NoBackoff
from redis.retry import Retry

from marketflow.app.ports import StoreAway

T = TypeVar("T")

READERS: Final = 4
"""Questions that read at a time."""


class Connections:
    """Calls to one Redis: one at a time that writes, and a few that read."""

    def __init__(self, pool: redis.ConnectionPool, timeout: float) -> None:
        """The timeout in seconds."""
        self._pool = pool
        self._timeout = timeout
        self._writers = trio.CapacityLimiter(1)
        self._writing: Any = None
        """The connection that replies to what was posted are to come from, None if there are none."""
        self._awaited: list[int] = []
        """How many replies to each post are to come."""
        self._readers = trio.CapacityLimiter(READERS)

    async def post(self, data: Sequence[bytes], replies: int) -> list[list[Any]]:
        """Send commands that are encoded already, with so many replies.

        Returns the replies to each of the posts before it. Redis then has something to do all the time.
        """

        def post() -> list[list[Any]]:
            self._send(data)
            earlier = self._awaited_replies()
            self._awaited.append(replies)
            return earlier

        return await self._in_turn(post)

    async def write(self, data: Sequence[bytes], replies: int) -> list[list[Any]]:
        """The same. Returns the replies to these commands as well, with one hop to a thread less."""

        def write() -> list[list[Any]]:
            self._send(data)
            self._awaited.append(replies)
            return self._settled()

        return await self._in_turn(write)

    async def settle(self) -> list[list[Any]]:
        """Returns the replies to each of the posts that had none yet."""
        return [] if self._writing is None else await self._in_turn(self._settled)

    def _send(self, data: Sequence[bytes]) -> None:
        if self._writing is None:
            self._writing = self._pool.get_connection()
        self._writing.send_packed_command(data)

    def _settled(self) -> list[list[Any]]:
        found = self._awaited_replies()
        # Until the next post anything may happen to it: the pool looks whether it is still good.
        writing, self._writing = self._writing, None
        self._pool.release(writing)
        return found

    def _awaited_replies(self) -> list[list[Any]]:
        awaited, self._awaited = self._awaited, []
        return [self._replies(self._writing, count) for count in awaited]

    async def _in_turn(self, call: Callable[[], T]) -> T:
        """Never abandoned: a write must not go on behind the back of whoever was told that it failed."""

        def write() -> T:
            try:
                return call()
            except BaseException:
                self._awaited = []
                writing, self._writing = self._writing, None
                if writing is not None:
                    writing.disconnect()
                    self._pool.release(writing)
                raise

        return await self._in_thread(write, self._writers, abandon=False)

    async def read(self, commands: Sequence[tuple[object, ...]], read: Callable[[list[Any]], T]) -> T:
        """Ask in one go; `read` makes sense of the replies, in the thread too, since there may be many.

        The time limit covers the wait for a turn: with Redis hanging nobody stands in line for everybody's.
        """
        with trio.move_on_after(self._timeout):
            return await self._read(lambda connection: read(self._ask(connection, commands)))
        raise StoreAway("no answer in time")

    def _ask(self, connection: Any, commands: Sequence[tuple[object, ...]]) -> list[Any]:
        if not commands:
            return []
        connection.send_packed_command(connection.pack_commands(commands))
        return self._replies(connection, len(commands))

    def _replies(self, connection: Any, count: int) -> list[Any]:
        """So many replies. The time limit is for all of them: each alone would be within the socket's."""
        deadline = time.monotonic() + self._timeout
        replies = []
        for _ in range(count):
            replies.append(connection.read_response())
            if time.monotonic() > deadline:
                raise redis.TimeoutError("the answer took too long")
        return replies

    async def _read(self, call: Callable[[Any], T]) -> T:
        """Call in a thread with a connection. After a failure of any kind the connection is thrown away."""

        def run() -> T:
            # redis-py gives its connections no types.
            connection: Any = self._pool.get_connection()
            try:
                result = call(connection)
            except BaseException:
                connection.disconnect()
                raise
            finally:
                self._pool.release(connection)
            return result

        return await self._in_thread(run, self._readers, abandon=True)

    async def _in_thread(self, call: Callable[[], T], limiter: trio.CapacityLimiter, *, abandon: bool) -> T:
        try:
            return await trio.to_thread.run_sync(call, limiter=limiter, abandon_on_cancel=abandon)
        except (redis.RedisError, OSError) as error:
            raise StoreAway(self._reason(error)) from error

    def _reason(self, error: Exception) -> str:
        # Of a command that it does not know, Redis repeats the arguments: those of AUTH are the password.
        text, _, _ = str(error).partition(", with args beginning with")
        password = self._pool.connection_kwargs.get("password")
        return text.replace(password, "***") if password else text


@asynccontextmanager
async def open_connections(url: str, timeout: float) -> AsyncIterator[Connections]:
    """Connections to a Redis URL, made when needed; closed on leaving. The timeout in seconds.

    Raises:
        ValueError: the URL is not of the form `redis://`, `rediss://` or `unix://`.
    """
    pool = redis.ConnectionPool.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        health_check_interval=0,
    )
    try:
        yield Connections(pool, timeout)
    finally:
        pool.disconnect()
