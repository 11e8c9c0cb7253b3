"""The mirrors of a simulated node that has no exchange, and what must hold of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import trio

from marketflow.adapters.cache.memory import MemoryWindow
from marketflow.app.cluster.mirror import Mirror
from marketflow.app.ports import START, Change, Clock
from marketflow.domain.periods import Span
from marketflow.domain.prices import Pair
from tests.cluster_simulation.servers import Shard, bars_of
from tests.simulation.process import Wrong
from tests.simulation.stores import Link

ALWAYS = Span(0, 2**62)
LOOK_SECONDS = 1.0


class ShardWindow(MemoryWindow):
    """Reads a shard behind a link."""

    def __init__(self, link: Link, shard: Shard) -> None:
        super().__init__(boot="", shelf=shard.shelf)
        self._link = link

    async def _reach(self) -> None:
        await self._link.carry(lambda: None)


class ShardChanges:
    """Fills the port Changes for one exchange."""

    def __init__(self, link: Link, shard: Shard) -> None:
        self._link = link
        self._shard = shard

    async def end(self, _: str) -> str:
        """See the port."""

        def end() -> str:
            changes = self._shard.shelf.changes
            return changes[-1].place if changes else START

        return await self._link.carry(end)

    async def after(self, _: str, place: str) -> Sequence[Change]:
        """See the port."""

        def after() -> Sequence[Change]:
            shelf, since = self._shard.shelf, _order(place)
            if shelf.fence is not None and int(shelf.fence.partition(":")[0]) < since[0]:
                since = _order(START)
            return [change for change in shelf.changes if _order(change.place) > since]

        return await self._link.carry(after)


def _order(place: str) -> tuple[int, ...]:
    return tuple(map(int, place.split("-")))


class SimulatedMirror:
    """A mirror of one exchange, which is looked at again and again."""

    def __init__(self, exchange: str, link: Link, shard: Shard, pairs: Sequence[Pair], clock: Clock) -> None:
        self.mirror = Mirror(
            exchange, window=ShardWindow(link, shard), changes=ShardChanges(link, shard), clock=clock
        )
        self.checks = 0
        """How often it was compared with its shard."""
        self._shard = shard
        self._pairs = pairs

    async def run(self) -> None:
        """Compare until cancelled."""
        while True:
            await self.check()
            await trio.sleep(LOOK_SECONDS)

    async def check(self) -> None:
        """It must have all that the shard had before it was asked.

        Raises:
            Wrong: it lacks something.
        """
        had, forgotten = bars_of(self._shard.shelf), self._shard.shelf.forgotten
        await self.mirror.catch_up(self._pairs)
        if not self.mirror.answers or self._shard.shelf.forgotten != forgotten:
            return
        self.checks += 1
        found = self.counts()
        lacking = {field: count for field, count in had.items() if found.get(field, 0) < count}
        if lacking:
            raise Wrong(f"a mirror of {self.mirror.exchange} lacks {list(lacking.items())[:3]}")

    def check_equal(self) -> None:
        """It must have what the shard has, neither more nor less.

        Raises:
            Wrong: it does not.
        """
        if (found := self.counts()) != (there := bars_of(self._shard.shelf)):
            wrong = list(found.items() ^ there.items())[:3]
            raise Wrong(f"a mirror of {self.mirror.exchange} differs from its shard: {wrong}")

    def counts(self) -> dict[tuple[Any, int, str], int]:
        """How many updates it has, by pair, second (ms) and term."""
        return {
            (pair, second, boot): bar.count
            for pair in self._pairs
            for (second, boot), bar in self.mirror.bars.fields(pair, ALWAYS).items()
        }
