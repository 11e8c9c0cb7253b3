"""One-second bars by exchange and symbol, and how they are read."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Final

import trio

from marketflow.app.ports import Field
from marketflow.app.share.foreign_bars import ForeignBars
from marketflow.app.share.newest_bars import NewestBars
from marketflow.app.share.pair_bars import PairBars
from marketflow.app.share.whole_minutes import WholeMinutes
from marketflow.domain.bars import Bar
from marketflow.domain.periods import MINUTE, Span, ceil_to, floor_to
from marketflow.domain.prices import Pair

PACKED_AT_ONCE: Final = 500
"""After so many bars everybody else gets a turn. It takes about 2 ms to pack them."""


class HeldBars:
    """Bars by exchange, symbol, second and boot. A share adds to what it holds, a mirror copies it."""

    def __init__(self) -> None:
        self._bars: dict[Pair, PairBars] = {}
        self.newest_bars = NewestBars()
        self._minutes = WholeMinutes(self.bar)
        self.foreign = ForeignBars()

    def _of(self, pair: Pair) -> PairBars:
        bars = self._bars.get(pair)
        if bars is None:
            bars = self._bars[pair] = PairBars(partial(self.foreign.found, pair))
        return bars

    async def check(self, pair: Pair) -> None:
        """Look at the bars of a pair that were adopted as a store had them."""
        bars = self._bars.get(pair)
        if bars is None:
            return
        for minute in bars.unchecked:
            bars.check(minute)
            await trio.lowlevel.checkpoint()

    @property
    def pairs(self) -> AbstractSet[Pair]:
        """The exchanges and symbols that have bars."""
        return {pair: None for pair, bars in self._bars.items() if not bars.empty}.keys()

    def __iter__(self) -> Iterator[tuple[Pair, Field, Bar]]:
        for pair, bars in self._bars.items():
            for second, boot, bar in bars:
                yield pair, (second, boot), bar

    def fields(self, pair: Pair, span: Span) -> dict[Field, Bar]:
        """The bars of the seconds that start within the span, by second and boot."""
        if pair not in self._bars:
            return {}
        return {(second, boot): bar for second, boot, bar in self._bars[pair].within(span)}

    def bar(self, pair: Pair, span: Span) -> Bar | None:
        """The updates of the seconds that start within the span; None if there are none."""
        return self._bars[pair].bar(span) if pair in self._bars else None

    def parts(self, pair: Pair, span: Span) -> list[tuple[int, Bar]]:
        """The updates of the seconds that start within the span, as bars of whole minutes where it can be.

        With the start (ms) of each.
        """
        first, last = ceil_to(span.start, MINUTE), floor_to(span.end, MINUTE)
        if first >= last:
            return [(second, bar) for (second, _), bar in self.fields(pair, span).items()]
        whole = self._minutes.of(pair, Span(first, last))
        return [*self.parts(pair, Span(span.start, first)), *whole, *self.parts(pair, Span(last, span.end))]

    async def pack(self) -> None:
        """Pack the minutes that have not changed since this was last called (see `PairBars`)."""
        packed = 0
        for pair in list(self._bars):
            if (bars := self._bars.get(pair)) is None:
                continue
            packed += bars.pack()
            if packed >= PACKED_AT_ONCE:
                packed = 0
                await trio.lowlevel.checkpoint()

    def _take_before(self, horizon: int) -> Iterator[tuple[Pair, int, str, Bar]]:
        """Forget the bars before `horizon` (ms, a whole minute): pair, second (ms), boot and bar of each."""
        for pair, bars in self._bars.items():
            for second, boot, bar in bars.take_before(horizon):
                yield pair, second, boot, bar
        for pair in [pair for pair, bars in self._bars.items() if bars.empty]:
            del self._bars[pair]
        self._minutes.forget_before(horizon)
