"""Implements the ports of questions and the live stream with mirrors, as on a node without exchanges.

The window of these tests has one boot after the other, for all exchanges. Here each boot counts as a term of
each exchange.
"""

from __future__ import annotations

from collections.abc import Sequence

from marketflow.adapters.cache.memory import MemoryFlush, MemoryWindow
from marketflow.app.cluster.cluster_stream import ClusterStream
from marketflow.app.cluster.mirror import Mirror
from marketflow.app.cluster.views import ClusterViews
from marketflow.app.ports import START, Change, Clock, StoreAway
from marketflow.domain.prices import Pair


class WrittenChanges:
    """What was written to a store, by exchange. All boots of a store have the same one."""

    def __init__(self) -> None:
        self.of: dict[str, list[Change]] = {}
        self._boots: dict[str, int] = {}

    def note(self, boot: str, write: MemoryFlush) -> None:
        """The boot has written this."""
        epoch = self._boots.setdefault(boot, len(self._boots) + 1)
        for exchange in sorted({pair[0] for pair, _, _ in write.flush.bars}):
            changes = self.of.setdefault(exchange, [])
            number = 1 + sum(change.term == boot for change in changes)
            bars = [each for each in write.flush.bars if each[0][0] == exchange]
            changes.append(Change(f"{epoch}-{number}", boot, bars))


class WindowChanges:
    """Fills the port Changes. It is away when the window is."""

    def __init__(self, window: MemoryWindow, written: WrittenChanges) -> None:
        self._window = window
        self._written = written

    async def end(self, exchange: str) -> str:
        self._reach()
        return self._written.of[exchange][-1].place if exchange in self._written.of else START

    async def after(self, exchange: str, place: str) -> Sequence[Change]:
        self._reach()
        changes = self._written.of.get(exchange, ())
        return [change for change in changes if _order(change.place) > _order(place)]

    def _reach(self) -> None:
        if self._window.away:
            raise StoreAway("switched off")


def _order(place: str) -> tuple[int, ...]:
    return tuple(map(int, place.split("-")))


class MirrorFilling:
    """Mirrors of all exchanges, and what fills the ports with them."""

    def __init__(
        self, window: MemoryWindow, written: WrittenChanges, pairs: Sequence[Pair], *, clock: Clock
    ) -> None:
        exchanges = dict.fromkeys(exchange for exchange, _ in pairs)
        changes = WindowChanges(window, written)
        self.mirrors = {
            exchange: Mirror(exchange, window=window, changes=changes, clock=clock) for exchange in exchanges
        }
        self.views = ClusterViews(self.mirrors)
        self.stream = ClusterStream(self.views, pairs, began_at=clock.now())

    def forget(self, before: int) -> None:
        """Forget bars from before this time (ms, a whole minute), as if Redis had lost them."""
        for mirror in self.mirrors.values():
            mirror.forget(before)
