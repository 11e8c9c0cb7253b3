"""The partial seconds at the ends of a span: counted where a count is enough, else read as raw updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from marketflow.app.interface import StatisticKind
from marketflow.app.knowledge import KnownBars, Standing
from marketflow.app.ports import StoreAway, WindowReading
from marketflow.domain.bars import BAR_WIDTH, Bar
from marketflow.domain.periods import Span, ceil_to, floor_to
from marketflow.domain.prices import Pair

EdgeBars = Mapping[Pair, Sequence[Bar]]
"""The bars of each pair's edges; edges without updates are left out."""


@attrs.frozen
class Edges:
    """Reads edges from the window, and makes sure that no accepted update is missing in them.

    Updates may be missing: pending, dropped, or expired. So the updates that the window holds in the whole
    seconds of an edge are counted. If they are as many as the bars of these seconds say, none is missing.

    Updates that are accepted while a question is answered may get into the answer. Where updates were
    dropped, new ones could make up the number of the lost ones. There the window must hold as many as have
    been accepted up to the moment after it was read.
    """

    _bars: KnownBars
    _standing: Standing
    _window: WindowReading

    async def bars(
        self,
        spans: Sequence[Span],
        inner: Mapping[Pair, Bar | None],
        kind: StatisticKind | None,
    ) -> EdgeBars | None:
        """The bars of all updates accepted before the question; None if the window does not hold them all.

        Updates that are accepted meanwhile may be among them.

        Args:
            spans: the edges; each lies within one second.
            inner: the bar of the whole seconds between the edges, of each pair that is asked about.
            kind: which statistic is wanted beside the count; None for all, open and close too.
        """
        accepted = {pair: self._accepted(pair, spans) for pair in inner}
        if not await self._standing.can_answer_from_redis():
            return None
        try:
            told = await self._tell(kind, spans, inner, accepted) if kind and spans else {}
            rest = [pair for pair in inner if pair not in told]
            read = await self._read(rest, spans, accepted)
            if read is None and await self._standing.flushed():
                read = await self._read(rest, spans, accepted)
        except StoreAway:
            return None  # One wait for a store that is slow or away is enough.
        return None if read is None else {**told, **read}

    def _accepted(self, pair: Pair, spans: Sequence[Span]) -> list[Bar | None]:
        """Of each span the bar of the whole seconds that it touches."""
        return [self._bars.bar(pair, _seconds(span)) for span in spans]

    async def _required(
        self, accepted: Mapping[Pair, Sequence[Bar | None]], spans: Sequence[Span]
    ) -> Mapping[Pair, list[int]]:
        """How many updates the window must have held, a moment ago, in each span's seconds to be complete."""
        lacking = {exchange for exchange in {pair[0] for pair in accepted} if self._bars.may_lack(exchange)}
        doubtful = [pair for pair in accepted if pair[0] in lacking]
        if doubtful:
            await self._bars.catch_up(doubtful)
        return {
            pair: _counts(self._accepted(pair, spans) if pair[0] in lacking else bars)
            for pair, bars in accepted.items()
        }

    async def _tell(
        self,
        kind: StatisticKind,
        spans: Sequence[Span],
        inner: Mapping[Pair, Bar | None],
        accepted: Mapping[Pair, Sequence[Bar | None]],
    ) -> EdgeBars:
        """The edges of the pairs for which the window holds exactly the accepted updates.

        If the extreme cannot lie in an edge, the number of its updates is enough, and they are not read.
        Otherwise their prices are read. Pairs for which the window holds more or fewer updates are left out.

        Raises:
            StoreAway
        """
        # Whole seconds are counted before and after the edges: an update may be written in between.
        wholes = [_seconds(span) for span in spans]
        parts = [*wholes, *spans, *wholes]
        counts = await self._window.counts([(pair, part) for pair in inner for part in parts])
        required = await self._required(accepted, spans)
        within: dict[Pair, Sequence[int]] = {}
        for pair, of_pair in zip(inner, _in_groups(counts, len(parts)), strict=True):
            before, numbers, after = _in_groups(of_pair, len(spans))
            known = _counts(accepted[pair])
            if before == after == known and known == required[pair]:
                within[pair] = numbers
        hidden = {pair: _hides(inner[pair], accepted[pair], kind) for pair in within}
        shown = [pair for pair in within if not hidden[pair]]
        prices = iter(await self._window.prices([(pair, span) for pair in shown for span in spans]))
        told: dict[Pair, Sequence[Bar]] = {
            pair: [
                bar.with_count(n) for bar, n in zip(accepted[pair], within[pair], strict=True) if bar and n
            ]
            for pair in within
            if hidden[pair]
        }
        for pair in shown:
            columns = [next(prices) for _ in spans]
            if [len(column) for column in columns] == within[pair]:
                told[pair] = [Bar.of_ascending([0] * len(column), column) for column in columns if column]
        return told

    async def _read(
        self, pairs: Sequence[Pair], spans: Sequence[Span], accepted: Mapping[Pair, Sequence[Bar | None]]
    ) -> EdgeBars | None:
        """The edges as bars of raw updates; None if an accepted one is missing.

        Raises:
            StoreAway
        """
        if not pairs or not spans:
            return dict.fromkeys(pairs, ())
        raw = await self._window.edges(pairs, spans)
        required = await self._required({pair: accepted[pair] for pair in pairs}, spans)
        complete = all(
            sum(edge.seconds.values()) >= count
            for pair, edges in raw.items()
            for edge, count in zip(edges, required[pair], strict=True)
        )
        if not complete:
            return None
        return {pair: [edge.bar for edge in edges if edge.bar] for pair, edges in raw.items()}


def _counts(bars: Sequence[Bar | None]) -> list[int]:
    return [bar.count if bar else 0 for bar in bars]


def _seconds(span: Span) -> Span:
    """The whole seconds that a span touches."""
    return Span(floor_to(span.start, BAR_WIDTH), ceil_to(span.end, BAR_WIDTH))


def _in_groups(values: Sequence[int], size: int) -> list[list[int]]:
    """Cut into lists of `size` values, in their order."""
    return [list(values[start : start + size]) for start in range(0, len(values), size)]


def _hides(inner: Bar | None, edges: Sequence[Bar | None], kind: StatisticKind | None) -> bool:
    """Whether the extreme cannot lie in the edges' seconds: then a count of their updates is enough.

    An average always needs their prices.
    """
    if inner is None or not any(edges):
        return not any(edges)
    match kind:
        case "highest":
            return all(bar is None or bar.max <= inner.max for bar in edges)
        case "lowest":
            return all(bar is None or bar.min >= inner.min for bar in edges)
        case _:
            return False
