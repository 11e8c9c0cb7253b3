"""Requests to Redis over sockets of Trio. Every call is bounded, and every failure is StoreAway.

The way of a request: commands as bytes, `send`, the bytes that come back, the parser, replies. It is one task
all the way, so its waits are cancel scopes and nothing is left behind. Two kinds of calls end differently:
- A write is not cancelled from outside: it could take effect after its caller got an error. It ends at its
  time limit, and its connection with it.
- A question is cancelled at once, and its connection is closed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, TypeVar

import attrs
import trio

from marketflow.adapters.cache.connection import Connection
from marketflow.adapters.cache.failures import Failures
from marketflow.adapters.cache.opening import Opener
from marketflow.adapters.cache.resp import Command, ErrorReply, pack_commands
from marketflow.adapters.cache.url import access_of

T = TypeVar("T")
Ask = Callable[[Sequence[Command]], Awaitable[list[Any]]]
"""Sends commands in one go and returns their replies; an error reply is raised."""

READERS: Final = 4
"""Questions that read at a time."""
MOST_INLINE: Final = 32_768
"""Bytes of replies that are made sense of at once, within about a millisecond. More of them go to a thread:
other tasks would wait meanwhile."""


class Writer:
    """The connection that writes. It is used by one task."""

    def __init__(self, opener: Opener, failures: Failures, timeout: float) -> None:
        """The timeout in seconds."""
        self._opener = opener
        self._failures = failures
        self._timeout = timeout
        self._connection: Connection | None = None

    async def post(self, data: Sequence[bytes], replies: int) -> list[list[Any]]:
        """Send commands that are encoded already, with so many replies.

        Returns the replies to each of the posts before it, error replies among them. Redis then has something
        to do all the time.
        """
        connection = await self._usable()
        return await self._exchange(connection, data, replies, requests=connection.awaited)

    async def write(self, data: Sequence[bytes], replies: int) -> list[list[Any]]:
        """The same. Returns the replies to these commands as well."""
        connection = await self._usable()
        return await self._exchange(connection, data, replies, requests=connection.awaited + 1)

    async def collect(self) -> list[list[Any]]:
        """Returns the replies to each of the posts that had none yet."""
        if self._connection is None or not self._connection.awaited:
            return []
        return await self._exchange(self._connection, (), 0, requests=self._connection.awaited)

    async def _usable(self) -> Connection:
        if self._connection is not None and not await self._connection.usable():
            self.close()
        if self._connection is None:
            self._connection = await self._opener.open()
        return self._connection

    async def _exchange(
        self, connection: Connection, data: Sequence[bytes], replies: int, *, requests: int
    ) -> list[list[Any]]:
        """Send, unless there is nothing to be sent, and receive the replies to the oldest requests."""
        try:
            return await connection.exchange(
                data, replies, requests=requests, deadline=trio.current_time() + self._timeout, shield=True
            )
        except Exception as error:
            self.close()
            raise self._failures.away(error) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection, if there is one. The next write makes another."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class Readers:
    """Connections that read, a few at a time."""

    def __init__(self, opener: Opener, failures: Failures, timeout: float) -> None:
        """The timeout in seconds."""
        self._opener = opener
        self._failures = failures
        self._timeout = timeout
        self._turns = trio.Semaphore(READERS)
        self._threads = trio.CapacityLimiter(READERS)
        self._idle: list[Connection] = []

    async def read(self, commands: Sequence[Command], read: Callable[[list[Any]], T]) -> T:
        """Ask in one go; `read` makes sense of the replies, in a thread if there are many."""
        async with self._lent() as (connection, deadline):
            before = connection.received
            replies = await _ask(connection, deadline, commands)
            return await self.made_sense_of(replies, read, connection.received - before, deadline)

    async def replies(self, commands: Sequence[Command]) -> tuple[list[Any], int]:
        """Ask in one go; returns the replies, error replies among them, and their size in bytes."""
        if not commands:
            return [], 0
        async with self._lent() as (connection, deadline):
            before = connection.received
            (replies,) = await connection.exchange(
                [pack_commands(commands)], len(commands), requests=1, deadline=deadline
            )
            return replies, connection.received - before

    async def read_parts(
        self, parts: Sequence[Sequence[Command]], read: Callable[[int, list[Any]], None]
    ) -> None:
        """Ask part by part; `read` makes sense of the replies to each, given its number.

        Redis works on the next part meanwhile. Each part has the whole time limit.
        """
        async with self._lent() as (connection, _):
            for number in range(-1, len(parts)):
                deadline, before = trio.current_time() + self._timeout, connection.received
                ahead = parts[number + 1 : number + 2]
                found = await connection.exchange(
                    [pack_commands(commands) for commands in ahead],
                    sum(map(len, ahead)),
                    requests=int(number >= 0),
                    deadline=deadline,
                )
                for replies in found:
                    _check(replies)
                    size = connection.received - before
                    await self.made_sense_of(replies, partial(read, number), size, deadline)

    async def made_sense_of(
        self, replies: list[Any], read: Callable[[list[Any]], T], size: int, deadline: float
    ) -> T:
        """What `read` makes of replies of that size (bytes), in a thread if they are many."""
        if size <= MOST_INLINE:
            return read(replies)
        with trio.fail_at(deadline):
            return await trio.to_thread.run_sync(read, replies, limiter=self._threads, abandon_on_cancel=True)

    async def converse(self, talk: Callable[[Ask], Awaitable[T]]) -> T:
        """Call `talk` with a connection of its own, on which it may ask several times."""
        async with self._lent() as (connection, deadline):
            return await talk(partial(_ask, connection, deadline))

    @asynccontextmanager
    async def _lent(self) -> AsyncIterator[tuple[Connection, float]]:
        """A connection, and until when (of Trio's clock) it may be used.

        The time limit covers the wait for a turn: while Redis hangs, nobody waits for others' time limits as
        well. After a failure of any kind, a cancellation included, the connection is closed.
        """
        deadline = trio.current_time() + self._timeout
        with self._failures.translated():
            with trio.fail_at(deadline):
                await self._turns.acquire()
            try:
                connection = await self._found() or await self._opener.open(deadline)
                try:
                    yield connection, deadline
                except BaseException:
                    connection.close()
                    raise
                self._idle.append(connection)
            finally:
                self._turns.release()

    async def _found(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            try:
                usable = await connection.usable()
            except BaseException:
                connection.close()
                raise
            if usable:
                return connection
            connection.close()
        return None

    def close(self) -> None:
        """Close the connections that nobody uses."""
        for connection in self._idle:
            connection.close()


async def _ask(connection: Connection, deadline: float, commands: Sequence[Command]) -> list[Any]:
    if not commands:
        return []
    (replies,) = await connection.exchange(
        [pack_commands(commands)], len(commands), requests=1, deadline=deadline
    )
    _check(replies)
    return replies


def _check(replies: Sequence[Any]) -> None:
    """Raise the first error among them."""
    for reply in replies:
        if isinstance(reply, ErrorReply):
            raise reply


@attrs.frozen
class Connections:
    """All connections to one Redis."""

    writer: Writer
    readers: Readers
    failures: Failures


@asynccontextmanager
async def open_connections(url: str, timeout: float) -> AsyncIterator[Connections]:
    """Connections to a Redis URL, made when needed; closed on leaving. The timeout in seconds.

    Raises:
        ValueError: the URL is none, or has options that are not allowed.
    """
    access = access_of(url, timeout)
    failures = Failures(access.secrets)
    opener = Opener(access, failures)
    writer = Writer(opener, failures, access.timeout)
    readers = Readers(opener, failures, access.timeout)
    try:
        yield Connections(writer, readers, failures)
    finally:
        writer.close()
        readers.close()
