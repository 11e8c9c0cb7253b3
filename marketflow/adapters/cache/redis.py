"""The window in Redis: sorted sets of raw updates, hashes of one-second bars."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from marketflow.adapters.cache.connections import Connections, open_connections
from marketflow.adapters.cache.keys import PLAIN
from marketflow.adapters.cache.lock import Lock, text_of
from marketflow.adapters.cache.markers import Markers
from marketflow.adapters.cache.packing import Packer, RedisFlush
from marketflow.adapters.cache.reading import RedisReading
from marketflow.adapters.cache.replies import check_write
from marketflow.adapters.cache.resp import refusals_of
from marketflow.app.ports import ALL, Field, Flush, Scope, Sight, StoreRefuses
from marketflow.domain.prices import Pair


class RedisWindow(RedisReading):
    """Fills the port Window. Use `open_redis_window`, which closes its connections."""

    def __init__(
        self, connections: Connections, *, boot: str, window_length: int, scope: Scope = ALL
    ) -> None:
        """The window's length in ms."""
        super().__init__(connections.readers, PLAIN, scope)
        self.met = Sight(None, None)
        self._redis = connections
        self._lock = Lock(connections.readers, boot.encode(), scope)
        self._packer = Packer(self._lock.boot, PLAIN, window_length=window_length)
        self._markers = Markers(self._lock.boot)
        self._posted: list[tuple[bytes, int]] = []
        """For each write in flight its marker, and the index of the previous marker among its replies."""

    # ---- writing ----

    def encode(self, flush: Flush) -> RedisFlush:
        """The commands of a flush."""
        return self._packer.pack(flush)

    def encode_trim(
        self, pairs: Sequence[Pair], *, older_than: int, bars: Sequence[tuple[Pair, Field]]
    ) -> RedisFlush:
        """The commands that remove old members and fields."""
        return self._packer.pack_trim(pairs, older_than=older_than, bars=bars)

    async def post(self, flush: RedisFlush) -> bool:
        """Send a flush; returns whether those posted before it have found the marker."""
        data, replies, posted = self._prepared(flush)
        try:
            found = await self._redis.writer.post(data, replies)
            self._posted.append(posted)
            if any(refusals_of(each) for each in found):
                found += await self._redis.writer.collect()  # After a failure no write is in flight.
            return self._found(found)
        except BaseException as error:
            self._forget(error)
            raise

    async def write(self, flush: RedisFlush) -> bool:
        """Send a flush; returns whether it and those posted before it have found the marker."""
        data, replies, posted = self._prepared(flush)
        self._posted.append(posted)
        try:
            return self._found(await self._redis.writer.write(data, replies))
        except BaseException as error:
            self._forget(error)
            raise

    async def collect(self) -> bool:
        """Wait for all that was posted; returns whether they have found the marker."""
        try:
            return self._found(await self._redis.writer.collect())
        except BaseException as error:
            self._forget(error)
            raise

    def _prepared(self, flush: RedisFlush) -> tuple[list[bytes], int, tuple[bytes, int]]:
        """The commands of a write, how many replies there will be, and what is kept of it."""
        marker, expiries = self._markers.next(), self._packer.expiries(flush)
        # Removals first, since a Redis that is full takes nothing before.
        data = [
            flush.removals + self._lock.marking(marker),
            flush.updates,
            flush.bars,
            b"".join(expiries),
        ]
        replies = flush.removals_replies + 3 + flush.updates_replies + len(flush.hashes) + len(expiries)
        return data, replies, (marker, flush.removals_replies)

    def _forget(self, error: BaseException) -> None:
        """After a failure it is unknown whether the posted writes took effect.

        All replies are there when a write is refused. After any other failure some may still come, and the
        next write would take them for its own: the connection ends.
        """
        self._posted.clear()
        self._packer.forget_expiries()
        if not isinstance(error, StoreRefuses):
            self._redis.writer.close()

    def _found(self, replies: Sequence[Sequence[Any]]) -> bool:
        """Check the replies to the oldest posted writes; returns whether each write has found the marker.

        A refused command raises StoreRefuses after all replies were checked: the marker was written.
        """
        refused: list[Exception] = []
        stranger: str | None = None
        for reply in replies:
            marker, place = self._posted.pop(0)
            found, holder = reply[place : place + 2]
            refusals = refusals_of(reply)
            refused += refusals
            if not isinstance(found, Exception):
                self._markers.acknowledged(marker, found)
            if not refusals:
                check_write(reply, place)
                self.met = Sight(text_of(holder), None)
                if self._markers.is_anothers(found):
                    stranger = text_of(found)
        self.met = Sight(self.met.holder, stranger)
        if refused:
            raise StoreRefuses(self._redis.failures.reason(refused[0]))
        intact = self._markers.report()
        if not intact:
            self._packer.forget_expiries()
        return intact

    # ---- the lease ----

    async def look(self) -> Sight:
        """See the port."""
        return await self._lock.look()

    async def take(self, found: Sight) -> bool:
        """See the port."""
        return await self._lock.take(found)

    async def release(self) -> None:
        """See the port."""
        await self._lock.release()


@asynccontextmanager
async def open_redis_window(
    url: str, *, boot: str, window_length: int, timeout: float, scope: Scope = ALL
) -> AsyncIterator[RedisWindow]:
    """A window at a Redis URL. Connects with the first call; closes all connections on leaving.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        boot: unique id of this run.
        window_length: ms.
        timeout: seconds that Redis has to connect, and to answer.
        scope: whose lease is taken, and of which exchanges bars are looked for.

    Raises:
        ValueError: the URL is not of that form.
    """
    async with open_connections(url, timeout) as connections:
        yield RedisWindow(connections, boot=boot, window_length=window_length, scope=scope)
