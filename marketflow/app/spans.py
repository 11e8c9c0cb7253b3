"""Bars for any span, from wherever they are: the window, the book, the rows. And which of them it was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs
import trio

from marketflow.app.answers import MEMORY, POSTGRES, REDIS, AnswerSource, NothingCanAnswer
from marketflow.app.book import Book
from marketflow.app.flushing import Flusher
from marketflow.app.ports import AggregateStore, Edge, FieldBars, StoreAway, Window
from marketflow.app.second_bars import BARS_KEPT, fuller
from marketflow.domain.bars import BAR_WIDTH, Bar, merged
from marketflow.domain.periods import DAY, MINUTE, Span, ceil_to, floor_to
from marketflow.domain.prices import Pair

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


class Spans:
    """Reads bars over ports only: the window first, with the window away the book; past both the rows.

    The book tells which one-second bars there are, so that the window is asked for just these.
    """

    def __init__(
        self,
        *,
        book: Book,
        flusher: Flusher,
        window: Window,
        store: AggregateStore,
        window_length: int,
        started_at: int,
        retention: int | None,
    ) -> None:
        """Times in ms; `started_at` is when this boot began, `retention` how long rows are kept."""
        self._book = book
        self._flusher = flusher
        self._window = window
        self._store = store
        self._window_length = window_length
        self._started_at = started_at
        self._retention = retention
        self._interval = book.bars.interval

    # ---- the last so-and-so long ----

    async def until(self, pairs: Sequence[Pair], period: int, now: int) -> Covered:
        """What is known of [now - period, now), as finely as it can be told.

        Up to the window's length to the ms, longer in whole seconds, and where one-second bars do not reach
        the beginning is a boundary of the aggregates.

        Raises:
            NothingCanAnswer: no part of it is known for sure.
        """
        await self._flusher.past_doubt()
        if period <= self._window_length and now - period >= self.reach(now):
            exact = await self._to_the_ms(pairs, Span(now - period, now))
            if exact is not None:
                return exact
        else:
            await self._flusher.flushed()
        end = floor_to(now, BAR_WIDTH)
        start = end - period
        reach = self.reach(now)
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
        parts, source = await self.bars(pairs, Span(max(start, reach), end), now)
        bars = {
            pair: bar
            for pair in pairs
            if (bar := merged([*(bar for _, bar in parts[pair]), *rows.get(pair, {}).values()])) is not None
        }
        return Covered(bars, Span(start, end), POSTGRES if start < reach else source)

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

        Empty once the history is known. Before that interval rows tell what there is to tell.
        """
        if self._flusher.history_known:
            return Span(0, 0)
        boot = ceil_to(self._started_at, BAR_WIDTH)
        return Span(floor_to(self._started_at, self._interval), boot)

    # ---- to the millisecond ----

    async def _to_the_ms(self, pairs: Sequence[Pair], span: Span) -> Covered | None:
        """Whole seconds from the bars and the edges from the raw updates; None if these are not complete.

        They are where they are as many as were accepted when the question came. Else some are pending, or
        were dropped, or have expired. What is accepted meanwhile may be in the answer.
        """
        first, last = ceil_to(span.start, BAR_WIDTH), floor_to(span.end, BAR_WIDTH)
        edges = [span] if first > last else [Span(span.start, first), Span(last, span.end)]
        newest = self._before(span.end, pairs) if first <= last else None
        if newest is not None:
            edges.pop()
        edges = [edge for edge in edges if not edge.empty]
        accepted = {pair: self._accepted(pair, edges) for pair in pairs}
        if not await self._flusher.confirmed():
            return None
        try:
            raw = await self._raw(pairs, edges, accepted)
            if raw is None and await self._flusher.flushed():
                raw = await self._raw(pairs, edges, accepted)
        except StoreAway:
            return None  # Slow or gone: it is not waited for a second time.
        if raw is None:
            return None
        fields, source = await self._fields(pairs, Span(first, last))
        bars = {
            pair: merged(
                [
                    *fields[pair].values(),
                    *(edge.bar for edge in raw[pair] if edge.bar),
                    *(newest or {}).get(pair, ()),
                ]
            )
            for pair in pairs
        }
        found = {pair: bar for pair, bar in bars.items() if bar is not None}
        return Covered(found, span, REDIS) if source == REDIS else None

    async def _raw(
        self, pairs: Sequence[Pair], spans: Sequence[Span], accepted: Mapping[Pair, Mapping[int, int]]
    ) -> Mapping[Pair, Sequence[Edge]] | None:
        """The raw updates of the spans; None if they are not all that were accepted.

        Raises:
            StoreAway
        """
        raw = await self._window.edges(pairs, spans) if spans else dict.fromkeys(pairs, ())
        complete = all(
            edge.seconds[second] >= count
            for pair in pairs
            for edge in raw[pair]
            for second, count in accepted[pair].items()
            if second in edge.seconds
        )
        return raw if complete else None

    def _before(self, end: int, pairs: Sequence[Pair]) -> Mapping[Pair, Sequence[Bar]] | None:
        """What was accepted of the second of `end` (ms), as it is now; None if not all of it is before that.

        Most often it is: then it needs no raw updates, nor that they have been flushed.
        """
        second = Span(floor_to(end, BAR_WIDTH), end)
        newest = {pair: list(self._book.bars.fields(pair, second).values()) for pair in pairs}
        over = all(bar.close_time < end for bars in newest.values() for bar in bars)
        return newest if over else None

    def _accepted(self, pair: Pair, spans: Iterable[Span]) -> dict[int, int]:
        """How many updates have been accepted of each second (start, ms) that the spans touch."""
        counts: dict[int, int] = {}
        for span in spans:
            whole = Span(floor_to(span.start, BAR_WIDTH), ceil_to(span.end, BAR_WIDTH))
            counts.update(dict.fromkeys(range(whole.start, whole.end, BAR_WIDTH), 0))
            for (second, _), bar in self._book.bars.fields(pair, whole).items():
                counts[second] += bar.count
        return counts

    # ---- bars, rows ----

    async def bars(
        self, pairs: Sequence[Pair], span: Span, now: int, *, by_second: bool = False
    ) -> tuple[Parts, AnswerSource]:
        """Bars of the seconds that start in the span, with their start (ms), and where they are from.

        They are of whole minutes where it can be, unless wanted `by_second`. The last minutes are read from
        the window; what is older was written to it or read from it when it was new, and is in the book.
        """
        recent = max(span.start, floor_to(now - self._window_length, MINUTE))
        fields, source = await self._fields(pairs, Span(recent, span.end))
        parts: Parts = {}
        for pair in pairs:
            older = Span(span.start, min(span.end, recent))
            if by_second:
                known = self._book.bars.fields(pair, older)
                parts[pair] = [(second, bar) for (second, _), bar in known.items()]
            else:
                parts[pair] = self._book.bars.parts(pair, older)
            parts[pair] += [(second, bar) for (second, _), bar in fields[pair].items()]
            await trio.lowlevel.checkpoint()  # An hour of many symbols must not hold up everybody else.
        return parts, source

    async def _fields(
        self, pairs: Sequence[Pair], span: Span
    ) -> tuple[Mapping[Pair, FieldBars], AnswerSource]:
        """One-second bars, and the source that they are from."""
        known = {pair: self._book.bars.fields(pair, span) for pair in pairs}
        if self._flusher.up:
            try:
                stored = await self._window.bars({pair: list(fields) for pair, fields in known.items()})
            except StoreAway:
                pass  # The flusher will notice, and say so. The book knows the same.
            else:
                return {pair: fuller(known[pair], stored.get(pair, {})) for pair in pairs}, REDIS
        return known, MEMORY

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
        unwritten = {pair: self._book.bars.unwritten_between(pair, span) for pair in pairs}
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
