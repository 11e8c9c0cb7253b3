"""The keys of a single service while they are copied: nobody else has its lease meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

import trio

from marketflow.adapters.cache.connections import Ask, Readers, open_connections
from marketflow.adapters.cache.keys import PLAIN
from marketflow.adapters.cache.lock import LOCK, LOCK_TTL
from marketflow.adapters.cache.pairs import find_pairs
from marketflow.adapters.cache.redis import open_redis_window
from marketflow.adapters.cache.resp import Command
from marketflow.app.instruments.stores import StoreState
from marketflow.app.ports import ALL, StoreAway, StoreTaken
from marketflow.app.share.rivals import HeldByAnother
from marketflow.app.share.window_lease import WindowLease
from marketflow.domain.prices import Pair

T = TypeVar("T")

LOOK_SECONDS: Final = 0.2
"""How often it is looked whether another service has ended."""
_RENEWAL: Final[Sequence[Command]] = (("GET", LOCK), ("PEXPIRE", LOCK, LOCK_TTL))


class PlainSide:
    """Fills `Side`. Use `open_plain_side`."""

    keys: Final = PLAIN

    def __init__(self, readers: Readers, boot: str) -> None:
        """`boot`: who has the lease."""
        self._readers = readers
        self._boot = boot.encode()

    async def pairs(self, exchanges: Sequence[str]) -> Sequence[Pair]:
        """Those of all exchanges, since nobody else may have keys with these names."""
        del exchanges
        return await find_pairs(self._readers, PLAIN, ALL)

    async def read(self, _: str, commands: Sequence[Command], read: Callable[[list[Any]], T]) -> T:
        """See `Side`. It renews the lease.

        Raises:
            StoreTaken: the lease is not ours any more.
        """

        def make_sense(replies: list[Any]) -> tuple[T, bytes | None]:
            *found, holder, _ = replies
            return read(found), holder

        found, holder = await self._readers.read([*commands, *_RENEWAL], make_sense)
        self._check(holder)
        return found

    async def write(self, _: str, commands: Sequence[Command]) -> None:
        """See `Side`. It renews the lease.

        Raises:
            StoreTaken: the lease is not ours any more. Nothing was written.
        """

        async def write(ask: Ask) -> tuple[bytes | None, bool]:
            _, holder = await ask([("WATCH", LOCK), ("GET", LOCK)])
            if holder != self._boot:
                await ask([("UNWATCH",)])
                return holder, False
            *_, result = await ask([("MULTI",), *commands, *_RENEWAL, ("EXEC",)])
            return holder, result is not None

        holder, written = await self._readers.converse(write)
        self._check(holder if written else None)

    def _check(self, holder: bytes | None) -> None:
        if holder != self._boot:
            raise StoreTaken("the lease on the single service's Redis was lost meanwhile: run it again")


@asynccontextmanager
async def open_plain_side(url: str, *, boot: str, timeout: float) -> AsyncIterator[PlainSide]:
    """Take the lease of a Redis, and give it back on leaving.

    Call it while the database is locked: then the lease of a service that was killed is taken over.

    Raises:
        ValueError: the URL is not of a Redis.
        StoreAway: it does not answer.
        StoreTaken: a service has it, or has written lately.
    """
    async with (
        open_connections(url, timeout) as connections,
        open_redis_window(url, boot=boot, window_length=0, timeout=timeout) as window,
    ):
        lease = WindowLease(window, boot=boot, state=StoreState("redis"), granted=lambda: True)
        while True:
            try:
                await lease.ensure()
                break
            except HeldByAnother:
                await trio.sleep(LOOK_SECONDS)
        try:
            yield PlainSide(connections.readers, boot)
        finally:
            with trio.move_on_after(timeout, shield=True), suppress(StoreAway):  # it expires by itself
                await lease.release()
