"""Questions about all exchanges of a cluster: asked of their servers at the same time, and put together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import trio

from marketflow.adapters.cache.keys import TAGGED
from marketflow.adapters.cache.reading import RedisReading
from marketflow.adapters.cache.routing import RoutedReaders
from marketflow.adapters.cache.servers import Servers
from marketflow.app.ports import Edge, Scope, StoreAway, StoredBars, StoreUnfit
from marketflow.domain.periods import Span
from marketflow.domain.prices import Pair, PriceUpdate

K = TypeVar("K")
T = TypeVar("T")


class SplitReading:
    """Fills the port WindowReading. If the server of one exchange is away, all of it is."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._readings: dict[str, RedisReading] = {}

    async def all_bars(self, pairs: Sequence[Pair]) -> Mapping[Pair, StoredBars]:
        """See the port."""
        return await self._of_pairs(pairs, lambda reading, some: reading.all_bars(some))

    async def edges(self, pairs: Sequence[Pair], spans: Sequence[Span]) -> Mapping[Pair, Sequence[Edge]]:
        """See the port."""
        return await self._of_pairs(pairs, lambda reading, some: reading.edges(some, spans))

    async def counts(self, spans: Sequence[tuple[Pair, Span]]) -> Sequence[int]:
        """See the port."""
        return await self._of_spans(spans, lambda reading, some: reading.counts(some))

    async def updates(self, spans: Sequence[tuple[Pair, Span]]) -> Sequence[Sequence[PriceUpdate]]:
        """See the port."""
        return await self._of_spans(spans, lambda reading, some: reading.updates(some))

    async def prices(self, spans: Sequence[tuple[Pair, Span]]) -> Sequence[Sequence[float]]:
        """See the port."""
        return await self._of_spans(spans, lambda reading, some: reading.prices(some))

    def _reading(self, exchange: str) -> RedisReading:
        if exchange not in self._readings:
            scope = Scope(frozenset({exchange}))
            self._readings[exchange] = RedisReading(RoutedReaders(self._servers, exchange), TAGGED, scope)
        return self._readings[exchange]

    async def _of_pairs(
        self,
        pairs: Sequence[Pair],
        ask: Callable[[RedisReading, Sequence[Pair]], Awaitable[Mapping[Pair, T]]],
    ) -> Mapping[Pair, T]:
        """Ask about the pairs of each exchange; returns what was found of all, in the order of the pairs."""
        found = await self._of_each([pair[0] for pair in pairs], pairs, ask)
        return {pair: found[pair[0]][pair] for pair in pairs}

    async def _of_spans(
        self,
        spans: Sequence[tuple[Pair, Span]],
        ask: Callable[[RedisReading, Sequence[tuple[Pair, Span]]], Awaitable[Sequence[T]]],
    ) -> Sequence[T]:
        """The same for spans."""
        found = await self._of_each([pair[0] for pair, _ in spans], spans, ask)
        following = {exchange: iter(of_it) for exchange, of_it in found.items()}
        return [next(following[pair[0]]) for pair, _ in spans]

    async def _of_each(
        self,
        exchanges: Sequence[str],
        items: Sequence[K],
        ask: Callable[[RedisReading, Sequence[K]], Awaitable[T]],
    ) -> dict[str, T]:
        shares: dict[str, list[K]] = {}
        for exchange, item in zip(exchanges, items, strict=True):
            shares.setdefault(exchange, []).append(item)

        def asking(exchange: str, share: Sequence[K]) -> Callable[[], Awaitable[T]]:
            return lambda: ask(self._reading(exchange), share)

        return await gathered({exchange: asking(exchange, share) for exchange, share in shares.items()})


async def gathered(calls: Mapping[K, Callable[[], Awaitable[T]]]) -> dict[K, T]:
    """What the calls return, all of them at the same time.

    Raises:
        StoreAway, StoreUnfit: one has. The others are cancelled.
    """
    found: dict[K, T] = {}
    errors: list[StoreAway | StoreUnfit] = []

    async def call(key: K, one: Callable[[], Awaitable[T]]) -> None:
        try:
            found[key] = await one()
        except (StoreAway, StoreUnfit) as error:
            errors.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for key, one in calls.items():
            nursery.start_soon(call, key, one)
    if errors:
        raise errors[0]
    return found
