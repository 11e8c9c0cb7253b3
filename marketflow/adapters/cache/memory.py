"""The window's twin in memory, for tests of the use cases: the same behaviour, and outages at will."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import trio

from marketflow.app.ports import Edge, Field, FieldBars, Flush, StoreAway
from marketflow.domain.bars import BAR_WIDTH, Bar, merged
from marketflow.domain.periods import Span, floor_to
from marketflow.domain.prices import Pair, PriceUpdate

UPDATE_SIZE = 75
"""Bytes that an update would take in Redis's form, about."""


@attrs.frozen
class MemoryFlush:
    """A flush as it is."""

    flush: Flush
    pairs: Sequence[Pair] = ()
    """Whose updates older than that are removed."""
    older_than: int = 0
    outdated: Sequence[tuple[Pair, Field]] = ()
    """Bars that are removed."""

    @property
    def size(self) -> int:
        """Bytes that it would take, about."""
        return UPDATE_SIZE * sum(len(run.timestamps) for run in self.flush.updates)

    def without_bars(self) -> MemoryFlush:
        """Its updates alone."""
        return MemoryFlush(Flush(self.flush.updates, ()))


class MemoryWindow:
    """Fills the port Window."""

    def __init__(self, *, boot: str) -> None:
        self.away = False
        """While it is set, every call fails."""
        self.forgetful = False
        """While it is set, a write takes effect, but its acknowledgement is lost."""
        self.writes = 0
        """How many were acknowledged."""
        self.members: dict[Pair, dict[tuple[int, str], PriceUpdate]] = {}
        """By sequence and boot: a second time the same is no other."""
        self.stored_bars: dict[Pair, dict[Field, Bar]] = {}
        self.marker: str | None = None
        self._boot = boot
        self._attempts = 0
        self._acknowledged = ""
        self._posted: list[tuple[str | None, str]] = []
        """Of each write on its way the marker that it has found, and its own."""

    def empty(self) -> None:
        """Forget everything, as after a restart of the store."""
        self.members.clear()
        self.stored_bars.clear()
        self.marker = None

    def encode(self, flush: Flush) -> MemoryFlush:
        """The flush itself."""
        return MemoryFlush(flush)

    def encode_trim(
        self, pairs: Sequence[Pair], *, older_than: int, bars: Sequence[tuple[Pair, Field]]
    ) -> MemoryFlush:
        """The removal itself."""
        return MemoryFlush(Flush((), ()), pairs, older_than, tuple(bars))

    async def post(self, flush: MemoryFlush) -> bool:
        """Write a flush; returns whether those posted before it have found the marker."""
        try:
            await self._reach()
        except StoreAway:
            self._posted.clear()
            raise
        intact = self._all_acknowledged()
        self._write(flush)
        if self.forgetful:
            self._posted.clear()
            raise StoreAway("no answer in time")
        return intact

    async def write(self, flush: MemoryFlush) -> bool:
        """Write a flush; returns whether it and those posted before it have found the marker."""
        intact = await self.post(flush)
        return await self.settle() and intact

    async def settle(self) -> bool:
        """Returns whether those posted have found the marker."""
        await trio.lowlevel.checkpoint()
        return self._all_acknowledged()

    def _all_acknowledged(self) -> bool:
        intact = True
        for found, marker in self._posted:
            intact = intact and found == self._acknowledged
            self._acknowledged = marker
        self.writes += len(self._posted)
        self._posted.clear()
        return intact

    def _write(self, write: MemoryFlush) -> None:
        for pair in write.pairs:
            held = self.members.get(pair, {})
            for key in [key for key, update in held.items() if update.timestamp < write.older_than]:
                del held[key]
        for pair, field in write.outdated:
            self.stored_bars.get(pair, {}).pop(field, None)
        self._attempts += 1
        found, self.marker = self.marker, f"{self._boot}:{self._attempts}"
        self._posted.append((found, self.marker))
        for run in write.flush.updates:
            members = self.members.setdefault((run.exchange, run.symbol), {})
            for sequence, timestamp, price in zip(run.sequences, run.timestamps, run.prices, strict=True):
                members[sequence, self._boot] = PriceUpdate(
                    run.exchange, run.symbol, price, timestamp, sequence
                )
        for pair, field, bar in write.flush.bars:
            self.stored_bars.setdefault(pair, {})[field] = bar

    async def all_bars(self, pairs: Sequence[Pair]) -> Mapping[Pair, FieldBars]:
        """Every bar there is."""
        await self._reach()
        return {pair: dict(self.stored_bars.get(pair, {})) for pair in pairs}

    async def pairs_with_bars(self) -> Sequence[Pair]:
        """Pairs that have bars."""
        await trio.lowlevel.checkpoint()
        return [] if self.away else [pair for pair, bars in self.stored_bars.items() if bars]

    async def bars(self, fields: Mapping[Pair, Sequence[Field]]) -> Mapping[Pair, FieldBars]:
        """The bars in these fields."""
        await self._reach()
        return {
            pair: {
                field: bar
                for field in of_pair
                if (bar := self.stored_bars.get(pair, {}).get(field)) is not None
            }
            for pair, of_pair in fields.items()
        }

    async def edges(self, pairs: Sequence[Pair], spans: Sequence[Span]) -> Mapping[Pair, Sequence[Edge]]:
        """The raw updates of each span as a bar."""
        await self._reach()
        return {pair: [self._edge(pair, span) for span in spans] for pair in pairs}

    async def counts(self, spans: Sequence[tuple[Pair, Span]]) -> Sequence[int]:
        """How many updates each pair has within its span."""
        await self._reach()
        return [
            sum(update.timestamp in span for update in self.members.get(pair, {}).values())
            for pair, span in spans
        ]

    async def prices(self, spans: Sequence[tuple[Pair, Span]]) -> Sequence[Sequence[float]]:
        """The prices that each pair has within its span."""
        await self._reach()
        return [
            [update.price for update in self.members.get(pair, {}).values() if update.timestamp in span]
            for pair, span in spans
        ]

    def _edge(self, pair: Pair, span: Span) -> Edge:
        held = self.members.get(pair, {}).values()
        bar = merged(
            Bar.of([update.timestamp], [update.price], update.sequence)
            for update in held
            if update.timestamp in span
        )
        seconds = range(floor_to(span.start, BAR_WIDTH), span.end, BAR_WIDTH)
        counts = {
            second: sum(update.timestamp in Span(second, second + BAR_WIDTH) for update in held)
            for second in seconds
        }
        return Edge(bar, counts)

    async def _reach(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise StoreAway("switched off")
