"""The newest updates of all exchanges of a cluster, for the live stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import trio
from trio_util import AsyncValue

from marketflow.app.cluster.views import ClusterViews
from marketflow.app.share.sequences import PER_MS
from marketflow.domain.bars import Bar
from marketflow.domain.prices import Pair, by_exchange

STREAM_SECONDS: Final = 0.01
"""How often the live stream looks for newer updates while it has clients."""


class ClusterStream:
    """Fills the port StreamedBars for a node, whose views come and go.

    Each exchange is followed by a task of its own. So a shard that hangs holds up only its own exchanges.
    """

    def __init__(self, views: ClusterViews, pairs: Sequence[Pair], *, began_at: int) -> None:
        """Pairs are those of both modes.

        Args:
            views: of the node.
            pairs: which are looked at.
            began_at: when the node was started (Unix ms): numbers of a later one are greater.
        """
        self._views = views
        self._pairs = pairs
        self._arrived = AsyncValue[int](began_at * PER_MS)
        self._waiting = AsyncValue[int](0)
        """How many wait for updates."""

    @property
    def arrived(self) -> int:
        """It grows when a pair has a newer update."""
        arrived: int = self._arrived.value
        return arrived

    async def run(self) -> None:
        """Follow all exchanges while somebody waits for updates, until cancelled."""
        async with trio.open_nursery() as nursery:
            for exchange, pairs in by_exchange(self._pairs).items():
                nursery.start_soon(self._follow, exchange, pairs)

    async def _follow(self, exchange: str, pairs: Sequence[Pair]) -> None:
        seen: dict[Pair, Bar | None] = {}
        while True:
            await self._waiting.wait_value(lambda waiting: waiting > 0)
            await self._views.catch_up(exchange, pairs)
            newest = {pair: self.newest(pair) for pair in pairs}
            if newest != seen:
                seen = newest
                self._arrived.value += 1
            await trio.sleep(STREAM_SECONDS)

    async def catch_up(self, pairs: Sequence[Pair]) -> None:
        """Learn of all updates of these pairs, of all exchanges at the same time."""
        async with trio.open_nursery() as nursery:
            for exchange, of_exchange in by_exchange(pairs).items():
                nursery.start_soon(self._views.catch_up, exchange, of_exchange)

    async def wait_for_updates(self, since: int) -> int:
        """Wait until a pair has a newer update. They are only found while `run` runs."""
        self._waiting.value += 1
        try:
            await self._arrived.wait_value(lambda arrived: arrived > since)
        finally:
            self._waiting.value -= 1
        return self.arrived

    def newest(self, pair: Pair) -> Bar | None:
        """The bar with the newest update."""
        return self._views.newest(pair)
