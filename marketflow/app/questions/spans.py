"""Bars for any span, from wherever they are: the window, the book, the rows. And which of them it was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs
import trio

from marketflow.app.answers import MEMORY, POSTGRES, REDIS, AnswerSource, NothingCanAnswer
from marketflow.app.interface import StatisticKind
from marketflow.app.ports import AggregateStore, StoreAway, Window
from marketflow.app.questions.edges import Edges
from marketflow.app.share.book import Book
from marketflow.app.share.flushing import Flusher
from marketflow.app.share.second_bars import BARS_KEPT
from marketflow.domain.bars import BAR_WIDTH, Bar, merged
from marketflow.domain.periods import DAY, Span, ceil_to, floor_to
from marketflow.domain.prices import Pair

Buckets = dict[Pair, dict[int, Bar]]
"""Bars by pair and the bucket's start (ms)."""

Parts = dict[Pair, list[tuple[int, Bar]]]
"""Bars by pair, each with its start (ms)."""

_FOREVER: Final = 2**62
"""A time (ms) after all others."""


@attrs.frozen
class Covered:
    """The bar of each pair that has updates in the span, and what span that is."""

    bars: Mapping[Pair, Bar]
    span: Span
    source: AnswerSource


class Spans:
    """Bars of the last hour are the book's, which are never behind the window's; past them there are rows.

    The window is read for what no bar tells: which updates of a second are in a span.
    """

    def __init__(
        self,
        *,
        book: Book,
        flusher: Flusher,
        window: Window,
        store: AggregateStore,
        window_length: int,
        retention: int | None,
    ) -> None:
        """Times in ms; `retention` is how long rows are kept."""
        self._book = book
        self._flusher = flusher
        self._edges = Edges(book, flusher, window, window_length / 1_000)
        self._store = store
        self._window_length = window_length
        self._retention = retention
        self._interval = book.bars.interval

    # ---- the last so-and-so long ----

    async def until(
        self, pairs: Sequence[Pair], period: int, now: int, kind: StatisticKind | None = None
    ) -> Covered:
        """What is known of [now - period, now), as finely as it can be told.

        Up to the window's length to the ms, longer in whole seconds, and where one-second bars do not reach
        the beginning is a boundary of the aggregates.

        Args:
            pairs: whose.
            period: ms.
            now: Unix ms.
            kind: what of the bars is wanted beside the count; None for all, open and close too.

        Raises:
            NothingCanAnswer: no part of it is known for sure.
        """
        await self._flusher.wait_for_history()
        if period <= self._window_length and now - period >= self.reach(now):
            exact = await self._to_the_ms(pairs, Span(now - period, now), kind)
            if exact is not None:
                return exact
        while True:
            reach = self.reach(now)
            covered = await self._in_seconds(pairs, period, now, reach)
            if self.reach(now) == reach:
                return covered
            # Bars were forgotten meanwhile, since Redis had lost others: the answer may lack them.

    async def _in_seconds(self, pairs: Sequence[Pair], period: int, now: int, reach: int) -> Covered:
        """The same in whole seconds; bars reach back to `reach` (ms)."""
        end = floor_to(now, BAR_WIDTH)
        start = end - period
        rows: Buckets = {}
        if start < reach:
            try:
                known = max(self.rows_start(now), ceil_to(self.unknown().end, self._interval))
                row_start = min(max(floor_to(start, self._interval), known), reach)
                rows = await self.rows(pairs, Span(row_start, reach), DAY)
                start = row_start
            except StoreAway:
                start = reach
        if start >= end:
            raise NothingCanAnswer
        parts = await self.bars(pairs, Span(max(start, reach), end))
        source: AnswerSource = (
            POSTGRES if start < reach else REDIS if await self._flusher.can_answer_from_redis() else MEMORY
        )
        bars = {
            pair: bar
            for pair in pairs
            if (bar := merged([*(bar for _, bar in parts[pair]), *rows.get(pair, {}).values()])) is not None
        }
        return Covered(bars, Span(start, end), source)

    def reach(self, now: int) -> int:
        """From when on (ms) every accepted update is in a one-second bar that is known."""
        kept = max(floor_to(now - BARS_KEPT, self._interval), self._book.bars.pruned_to)
        # The clock may have stepped back behind what it was when bars were forgotten last.
        return max(min(kept, floor_to(now, self._interval)), self.unknown().end)

    def rows_start(self, now: int) -> int:
        """From when on (ms) no row was deleted because of its age."""
        return 0 if self._retention is None else ceil_to(now - self._retention, self._interval)

    def unknown(self) -> Span:
        """The part of an interval that nobody knows: what earlier boots accepted of that in which we began.

        Empty once the history is known. Before that interval rows tell what there is to tell. Until this boot
        accepts updates itself, another one may be running: then nothing is known.
        """
        if self._flusher.history_known:
            return Span(0, 0)
        began_at = self._book.began_at
        if began_at is None:
            return Span(0, _FOREVER)
        return Span(floor_to(began_at, self._interval), ceil_to(began_at, BAR_WIDTH))

    # ---- to the millisecond ----

    async def _to_the_ms(
        self, pairs: Sequence[Pair], span: Span, kind: StatisticKind | None
    ) -> Covered | None:
        """Whole seconds from the bars and the edges from the raw updates; None if these are not complete.

        What is accepted meanwhile may be in the answer.
        """
        first, last = ceil_to(span.start, BAR_WIDTH), floor_to(span.end, BAR_WIDTH)
        edges = [Span(span.start, first)]
        if self._ends_before(span.end, pairs):
            last = span.end
        else:
            edges.append(Span(last, span.end))
        inner = {pair: self._book.bars.bar(pair, Span(first, last)) for pair in pairs}
        outer = await self._edges.bars([edge for edge in edges if not edge.empty], inner, kind)
        if outer is None:
            return None
        bars = {pair: merged([*([bar] if bar else ()), *outer[pair]]) for pair, bar in inner.items()}
        return Covered({pair: bar for pair, bar in bars.items() if bar is not None}, span, REDIS)

    def _ends_before(self, end: int, pairs: Sequence[Pair]) -> bool:
        """Whether all that was accepted of the second of `end` (ms) is before that.

        Most often it is: then it needs no raw updates, nor that they have been flushed.
        """
        second = Span(floor_to(end, BAR_WIDTH), end)
        newest = (self._book.bars.bar(pair, second) for pair in pairs)
        return all(bar is None or bar.close_time < end for bar in newest)

    # ---- bars, rows ----

    async def bars(self, pairs: Sequence[Pair], span: Span, *, by_second: bool = False) -> Parts:
        """Bars of the seconds that start in the span, with their start (ms).

        They are of whole minutes where it can be, unless wanted `by_second`.
        """
        parts: Parts = {}
        for pair in pairs:
            if by_second:
                known = self._book.bars.fields(pair, span)
                parts[pair] = [(second, bar) for (second, _), bar in known.items()]
            else:
                parts[pair] = self._book.bars.parts(pair, span)
            await trio.lowlevel.checkpoint()  # An hour of many symbols must not hold up everybody else.
        return parts

    async def skip(self, pairs: Sequence[Pair], span: Span, rows: int, *, backwards: bool) -> int | None:
        """How far as many rows reach, see the port.

        Raises:
            StoreAway: PostgreSQL is.
        """
        return await self._store.skip(pairs, span, rows, backwards=backwards)

    async def rows(self, pairs: Sequence[Pair], span: Span, width: int) -> Buckets:
        """Aggregates within the span in buckets of `width` ms, rows that are yet to be written included.

        Raises:
            StoreAway: PostgreSQL is.
        """
        # Looked at first: what is written meanwhile would be in neither.
        unwritten = {pair: self._book.rows.unwritten_between(pair, span) for pair in pairs}
        stored = await self._store.bars(pairs, span, width)
        buckets: Buckets = {pair: dict(stored.get(pair, {})) for pair in pairs}
        starts = [start for bars in unwritten.values() for start in bars]
        if not starts:
            return buckets
        # Row by row only where one is yet to be written: which of both knows more is decided for each.
        first = max(span.start, floor_to(min(starts), width))
        last = min(span.end, floor_to(max(starts), width) + width)
        fine = await self._store.bars(pairs, Span(first, last), self._interval)
        for pair in pairs:
            rows = dict(fine.get(pair, {}))
            for start, ours in unwritten[pair].items():
                if start not in rows or rows[start].count < ours.count:
                    rows[start] = ours
            buckets[pair].update(bucketed(rows.items(), width))
        return buckets


def bucketed(bars: Iterable[tuple[int, Bar]], width: int) -> dict[int, Bar]:
    """Bars given with their start (ms), merged into buckets of `width` ms."""
    parts: dict[int, list[Bar]] = {}
    for start, bar in bars:
        parts.setdefault(floor_to(start, width), []).append(bar)
    return {start: whole for start, group in parts.items() if (whole := merged(group)) is not None}
