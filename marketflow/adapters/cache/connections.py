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
        self._readers = trio.CapacityLimiter(READERS)

    async def send(self, data: bytes, replies: int) -> Any:
        """Send commands that are encoded already, with so many replies; returns the first."""

        def send(connection: Any) -> Any:
            connection.send_packed_command([data])
            return self._replies(connection, replies)[0]

        return await self._run(send, self._writers)

    async def change(self, commands: Sequence[tuple[object, ...]]) -> None:
        """Send commands in one go."""
        await self._run(lambda connection: self._ask(connection, commands), self._writers)

    async def read(self, commands: Sequence[tuple[object, ...]], read: Callable[[list[Any]], T]) -> T:
        """Ask in one go; `read` makes sense of the replies, in the thread too, since there may be many.

        The time limit covers the wait for a turn: with Redis hanging nobody stands in line for everybody's.
        """
        with trio.move_on_after(self._timeout):
            return await self._run(
                lambda connection: read(self._ask(connection, commands)), self._readers, abandon=True
            )
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

    async def _run(
        self, call: Callable[[Any], T], limiter: trio.CapacityLimiter, *, abandon: bool = False
    ) -> T:
        """Call in a thread with a connection. After a failure of any kind the connection is thrown away.

        A write is never abandoned: it must not go on behind the back of whoever was told that it failed.
        """

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

        try:
            return await trio.to_thread.run_sync(run, limiter=limiter, abandon_on_cancel=abandon)
        except (redis.RedisError, OSError) as error:
            raise StoreAway(str(error)) from error


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
