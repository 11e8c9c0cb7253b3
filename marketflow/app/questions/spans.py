"""Bars for any span, from the window, the known bars or rows, and which of them it was."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import attrs
import trio

from marketflow.app.answers import MEMORY, POSTGRES, REDIS, AnswerSource, NothingCanAnswer
from marketflow.app.interface import StatisticKind
from marketflow.app.knowledge import Knowledge, View, Views
from marketflow.app.ports import RowReading, StoreAway, WindowReading
from marketflow.app.questions.edges import Edges
from marketflow.domain.bars import BAR_WIDTH, Bar, merged
from marketflow.domain.periods import DAY, Interval, Span, ceil_to, floor_to
from marketflow.domain.prices import Pair

_Answer = TypeVar("_Answer")

Buckets = dict[Pair, dict[int, Bar]]
"""Bars by pair and the bucket's start (ms)."""

Parts = dict[Pair, list[tuple[int, Bar]]]
"""Bars by pair, each with its start (ms)."""


@attrs.frozen
class Covered:
    """The bar of each pair that has updates in the span, and what span that is."""

    bars: Mapping[Pair, Bar]
    span: Span
    source: AnswerSource


@attrs.frozen(kw_only=True)
class Spans:
    """Reads one-second bars of the last hour, and rows of the time before.

    The window is read only for partial seconds: a bar cannot tell which updates of its second are in a span.
    """

    views: Views
    window: WindowReading
    store: RowReading
    interval: int
    """The length (ms) of an aggregate."""
    window_length: int
    """How long (ms) the window keeps an update."""
    retention: int | None
    """How long (ms) rows are kept; None for ever."""

    def of(self, pairs: Sequence[Pair]) -> PairSpans:
        """Those of some pairs, for one question."""
        return PairSpans(pairs, self.views.of({exchange for exchange, _ in pairs}), self)


class PairSpans:
    """Reads the spans of some pairs for one question.

    It keeps the view with which it began: another node may take over one of the exchanges meanwhile, and an
    answer must not be put together from two views.
    """

    def __init__(self, pairs: Sequence[Pair], view: View, of_all: Spans) -> None:
        """`of_all`: where they are read."""
        self.pairs = pairs
        self._bars = view.bars
        self._standing = view.standing
        self._edges = Edges(view.bars, view.standing, of_all.window)
        self._of_all = of_all

    async def catch_up(self, since: int) -> None:
        """Wait until the history is known from `since` (ms) on, or out of reach.

        Then learn of all that was accepted until now.
        """
        await self._standing.wait_for_history(max(0, since))
        await self._bars.catch_up(self.pairs)

    def knowledge(self, now: int) -> Knowledge:
        """What can answer for which time, at `now` (ms). It changes when bars are read or forgotten."""
        return Knowledge.at(
            now,
            interval=self._of_all.interval,
            retention=self._of_all.retention,
            forgotten_to=self._bars.forgotten_to,
            known_from=self._standing.known_from,
            began_at=self._standing.began_at,
        )

    async def consistent(self, read: Callable[[Knowledge], Awaitable[_Answer]], now: int) -> _Answer:
        """What `read` makes of all that is known at `now` (ms): rows and bars of one state of knowledge.

        While it waits for a store, rows may show that Redis had lost bars. From then on rows answer for that
        time, and the bars that it has read are too few: it reads once more.
        """
        while True:
            knowledge = self.knowledge(now)
            answer = await read(knowledge)
            if self.knowledge(now).bars_from == knowledge.bars_from:
                return answer

    # ---- a span ----

    async def over(self, span: Span, now: int, kind: StatisticKind | None = None) -> Covered:
        """The bars of the span, or of the nearest span that can be answered.

        A span within the window is exact to the ms if Redis answers. Otherwise it consists of whole seconds,
        and where one-second bars do not go back to its start or end, it begins or ends with an interval of
        the aggregates: it is longer than asked for then, but does not reach beyond `now`. It is shorter if
        nobody knows its beginning.

        Args:
            span: it ends at `now` or earlier.
            now: Unix ms.
            kind: which statistic is wanted beside the count; None for all, open and close too.

        Raises:
            NothingCanAnswer: no part of it is known for sure.
        """
        if span.empty:
            return Covered({}, span, MEMORY)
        await self.catch_up(floor_to(span.start, BAR_WIDTH))

        async def read(knowledge: Knowledge) -> Covered:
            if span.start >= max(now - self._of_all.window_length, knowledge.bars_from):
                exact = await self.to_the_ms(span, kind)
                if exact is not None:
                    return exact
            return await self._in_seconds(span, floor_to(now, BAR_WIDTH), knowledge)

        return await self.consistent(read, now)

    async def _in_seconds(self, span: Span, last: int, knowledge: Knowledge) -> Covered:
        """The bars of the whole seconds that the span touches, as far as it is known, up to `last` (ms)."""
        bars_from = knowledge.bars_from
        start = min(floor_to(span.start, BAR_WIDTH), last - BAR_WIDTH)
        end = min(max(ceil_to(span.end, BAR_WIDTH), start + BAR_WIDTH), last)
        if end <= bars_from:
            end = min(ceil_to(end, self._of_all.interval), bars_from)
            if end <= knowledge.rows_from:
                return Covered({}, span, POSTGRES)  # Its rows were deleted.
        start = knowledge.whole_from(start, end)
        rows: Buckets = {}
        if start < min(end, bars_from):
            try:
                rows = await self.rows(Span(start, min(end, bars_from)), DAY)
            except StoreAway:
                start = bars_from
        if start >= end:
            raise NothingCanAnswer
        parts = await self.bars(Span(max(start, bars_from), end))
        source: AnswerSource = POSTGRES if start < bars_from else await self.source()
        bars = {
            pair: bar
            for pair in self.pairs
            if (bar := merged([*(bar for _, bar in parts[pair]), *rows.get(pair, {}).values()])) is not None
        }
        return Covered(bars, Span(start, end), source)

    async def source(self) -> AnswerSource:
        """Where one-second bars come from: from Redis as long as it has them all."""
        return REDIS if await self._standing.can_answer_from_redis() else MEMORY

    # ---- to the millisecond ----

    async def to_the_ms(self, span: Span, kind: StatisticKind | None) -> Covered | None:
        """Whole seconds from bars, the edges from raw updates; None if these lack an accepted update.

        The edges must be in the window. Updates that are accepted meanwhile may be in the answer.
        """
        first, last = ceil_to(span.start, BAR_WIDTH), floor_to(span.end, BAR_WIDTH)
        edges = [Span(span.start, first)]
        if self._ends_before(span.end):
            last = span.end
        else:
            edges.append(Span(last, span.end))
        inner = {pair: self._bars.bar(pair, Span(first, last)) for pair in self.pairs}
        outer = await self._edges.bars([edge for edge in edges if not edge.empty], inner, kind)
        if outer is None:
            return None
        bars = {pair: merged([*([bar] if bar else ()), *outer[pair]]) for pair, bar in inner.items()}
        return Covered({pair: bar for pair, bar in bars.items() if bar is not None}, span, REDIS)

    def _ends_before(self, end: int) -> bool:
        """Whether all updates of the second of `end` (ms) are before `end`.

        They usually are: only an exchange whose clock is ahead sends others. Then the bars of that second are
        enough, and the question does not wait until its updates have been flushed.
        """
        second = Span(floor_to(end, BAR_WIDTH), end)
        newest = (self._bars.bar(pair, second) for pair in self.pairs)
        return all(bar is None or bar.close_time < end for bar in newest)

    # ---- bars, rows ----

    async def bars(self, span: Span, *, by_second: bool = False) -> Parts:
        """Bars of the seconds that start in the span, with their start (ms).

        Whole minutes are merged into one bar unless they are wanted `by_second`.
        """
        parts: Parts = {}
        read = self._bars.seconds if by_second else self._bars.minutes
        for pair in self.pairs:
            parts[pair] = read(pair, span)
            await trio.lowlevel.checkpoint()  # An hour of many symbols must not hold up all other tasks.
        return parts

    async def skip(self, span: Span, rows: int, *, backwards: bool) -> int | None:
        """How far as many rows reach, see the port.

        Raises:
            StoreAway: PostgreSQL is.
        """
        return await self._of_all.store.skip(self.pairs, span, rows, backwards=backwards)

    async def rows(self, span: Span, width: int) -> Buckets:
        """Aggregates within the span in buckets of `width` ms, those that are yet to be written included.

        Raises:
            StoreAway: PostgreSQL is.
        """
        # Before the store: a row that is written in between is in both, and not in neither.
        unwritten = {pair: self._bars.unwritten(pair, span) for pair in self.pairs}
        stored = await self._of_all.store.bars(self.pairs, span, width)
        buckets: Buckets = {pair: dict(stored.get(pair, {})) for pair in self.pairs}
        starts = [start for bars in unwritten.values() for start in bars]
        if not starts:
            return buckets
        # Where both know an interval the fuller one counts: such buckets are made row by row.
        first = max(span.start, floor_to(min(starts), width))
        last = min(span.end, floor_to(max(starts), width) + width)
        fine = await self._of_all.store.bars(self.pairs, Span(first, last), self._of_all.interval)
        for pair in self.pairs:
            rows = dict(fine.get(pair, {}))
            for start, ours in unwritten[pair].items():
                if start not in rows or rows[start].count < ours.count:
                    rows[start] = ours
            buckets[pair].update(bucketed(rows.items(), Interval(width)))
        return buckets


def bucketed(bars: Iterable[tuple[int, Bar]], buckets: Interval) -> dict[int, Bar]:
    """Bars given with their start (ms), merged into buckets."""
    parts: dict[int, list[Bar]] = {}
    for start, bar in bars:
        parts.setdefault(buckets.floor(start), []).append(bar)
    return {start: whole for start, group in parts.items() if (whole := merged(group)) is not None}
