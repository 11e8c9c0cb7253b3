"""The partial seconds at the ends of a span: told by raw updates, or only counted where that is enough."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import attrs
import trio

from marketflow.app.interface import StatisticKind
from marketflow.app.ports import StoreAway, Window
from marketflow.app.share.book import Book
from marketflow.app.share.flushing import Flusher
from marketflow.domain.bars import BAR_WIDTH, Bar
from marketflow.domain.periods import Span, ceil_to, floor_to
from marketflow.domain.prices import Pair

EdgeBars = Mapping[Pair, Sequence[Bar]]
"""Of each pair the bars of its edges, those without updates left out."""


AHEAD: Final = 5.0
"""Seconds that an accepted timestamp may be ahead of our clock."""


@attrs.frozen
class Edges:
    """Reads edges from the window. They are complete where as many updates are there as were accepted.

    Else some are pending, or were dropped, or have expired. While a question is answered more may be accepted
    and written. Where updates were dropped, these could make up the number of the lost ones. There as many
    must be in the window as have been accepted by then.
    """

    _book: Book
    _flusher: Flusher
    _window: Window
    _window_length: float
    """Seconds."""
    _losses: dict[str, tuple[int, float]] = attrs.field(factory=dict, init=False)
    """By exchange how many updates it had dropped, and when that was seen (seconds of Trio's clock)."""

    async def bars(
        self,
        spans: Sequence[Span],
        inner: Mapping[Pair, Bar | None],
        kind: StatisticKind | None,
    ) -> EdgeBars | None:
        """The bars of all that was accepted before the question; None if they cannot be told.

        What is accepted meanwhile may be among it.

        Args:
            spans: the edges; each lies within one second.
            inner: what is known beside the edges, of each pair that is asked about.
            kind: what of the bars is wanted beside the count; None for all, open and close too.
        """
        accepted = {pair: [self._accepted(pair, span) for span in spans] for pair in inner}
        if not await self._flusher.can_answer_from_redis():
            return None
        try:
            told = await self._tell(kind, spans, inner, accepted) if kind and spans else {}
            rest = [pair for pair in inner if pair not in told]
            read = await self._read(rest, spans, accepted)
            if read is None and await self._flusher.flushed():
                read = await self._read(rest, spans, accepted)
        except StoreAway:
            return None  # Slow or gone: it is not waited for a second time.
        return None if read is None else {**told, **read}

    def _accepted(self, pair: Pair, span: Span) -> Bar | None:
        """The bar of the whole seconds that a span touches."""
        return self._book.bars.bar(pair, _seconds(span))

    def _to_be_there(self, pair: Pair, spans: Sequence[Span], known: list[int]) -> list[int]:
        """How many updates of each span's seconds show that none is missing that was `known`."""
        if not self._has_dropped(pair[0]):
            return known
        return _counts([self._accepted(pair, span) for span in spans])

    def _has_dropped(self, exchange: str) -> bool:
        """Whether an update may have been dropped that would be in the window."""
        now, dropped = trio.current_time(), self._book.ledgers[exchange].dropped.total()
        before, seen_at = self._losses.get(exchange, (0, -math.inf))
        if dropped != before:
            seen_at = now
            self._losses[exchange] = dropped, seen_at
        return now - seen_at <= self._window_length + AHEAD

    async def _tell(
        self,
        kind: StatisticKind,
        spans: Sequence[Span],
        inner: Mapping[Pair, Bar | None],
        accepted: Mapping[Pair, Sequence[Bar | None]],
    ) -> EdgeBars:
        """By counts where these are enough, else by prices; of pairs that have just what was accepted.

        Raises:
            StoreAway
        """
        # The seconds before and after: something may be written in between.
        wholes = [_seconds(span) for span in spans]
        parts = [*wholes, *spans, *wholes]
        counts = await self._window.counts([(pair, part) for pair in inner for part in parts])
        within: dict[Pair, Sequence[int]] = {}
        for pair, of_pair in zip(inner, _in_groups(counts, len(parts)), strict=True):
            before, numbers, after = _in_groups(of_pair, len(spans))
            known = _counts(accepted[pair])
            if before == after == known and known == self._to_be_there(pair, spans, known):
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
        """None if they are not all that were accepted.

        Raises:
            StoreAway
        """
        raw = await self._window.edges(pairs, spans) if pairs and spans else dict.fromkeys(pairs, ())
        complete = all(
            sum(edge.seconds.values()) >= count
            for pair, edges in raw.items()
            for edge, count in zip(
                edges, self._to_be_there(pair, spans, _counts(accepted[pair])), strict=True
            )
        )
        if not complete:
            return None
        return {pair: [edge.bar for edge in edges if edge.bar] for pair, edges in raw.items()}


def _counts(bars: Sequence[Bar | None]) -> list[int]:
    return [bar.count if bar else 0 for bar in bars]


def _seconds(span: Span) -> Span:
    """The whole seconds that it touches."""
    return Span(floor_to(span.start, BAR_WIDTH), ceil_to(span.end, BAR_WIDTH))


def _in_groups(values: Sequence[int], size: int) -> list[list[int]]:
    """The values in their order, `size` of them in each list."""
    return [list(values[start : start + size]) for start in range(0, len(values), size)]


def _hides(inner: Bar | None, edges: Sequence[Bar | None], kind: StatisticKind | None) -> bool:
    """Whether no part of the edges' seconds can go beyond what is known beside them."""
    if inner is None or not any(edges):
        return not any(edges)
    match kind:
        case "highest":
            return all(bar is None or bar.max <= inner.max for bar in edges)
        case "lowest":
            return all(bar is None or bar.min >= inner.min for bar in edges)
        case _:
            return False
