"""Candles: bars of regular intervals over rows, one-second bars and the open interval, page by page."""

from __future__ import annotations

from collections.abc import Sequence

from marketflow.app.answers import Candle, Candles, NothingCanAnswer
from marketflow.app.ports import StoreAway
from marketflow.app.questions.spans import Spans, bucketed
from marketflow.domain.bars import Bar
from marketflow.domain.periods import CANDLE_INTERVALS, DAY, MINUTE, Span, ceil_to, floor_to
from marketflow.domain.prices import Pair


class CandlePages:
    """Reads pages of candles."""

    def __init__(self, spans: Spans, *, interval: int, grace: int) -> None:
        """Times in ms: the aggregates' interval, and how long after its end a candle is closed."""
        self._spans = spans
        self._interval = interval
        self._grace = grace

    async def page(
        self,
        pairs: Sequence[Pair],
        interval: str,
        *,
        exchange: str | None,
        start: int | None,
        end: int | None,
        limit: int,
        now: int,
    ) -> Candles:
        """At most `limit` candles that begin within [start, end), oldest first; the newest without `start`.

        Candles finer than the aggregates reach back as far as the one-second bars.

        Raises:
            NothingCanAnswer: part of what was asked for is in a store that is away.
        """
        width = CANDLE_INTERVALS[interval]
        # Nothing is a day ahead of our clock, and no store has to cope with the year 9999.
        last = ceil_to(now if end is None else min(end, now + DAY), width)
        known_from = following = None
        if start is None:
            bars, known_from = await self._newest(pairs, width, last, limit, now)
            shown = sorted(bars)[-limit:]
        else:
            bars = await self._from(pairs, width, Span(ceil_to(start, width), last), limit, now)
            starts = sorted(bars)
            shown = starts[:limit]
            following = starts[limit] if len(starts) > limit else None
        return Candles(
            symbol=pairs[0][1],
            exchange=exchange,
            interval=interval,
            candles=[self._candle(first, width, bars[first], now) for first in shown],
            next=following,
            known_from=known_from,
        )

    async def _newest(
        self, pairs: Sequence[Pair], width: int, last: int, limit: int, now: int
    ) -> tuple[dict[int, Bar], int | None]:
        """The newest, and from when on they are known if that cuts them short."""
        known = ceil_to(self._spans.reach(now), width)
        bars = await self._load(pairs, width, Span(known, last), now)
        if len(bars) >= limit:
            return bars, None
        try:
            first = await self._skip(pairs, width, Span(0, min(last, known)), limit, backwards=True)
            older = await self._load(pairs, width, Span(first or 0, min(last, known)), now)
        except NothingCanAnswer:
            # The newest there are, if fewer: what is older is in a store that is away.
            if not bars:
                raise
            return bars, known
        return older | bars, None

    async def _from(
        self, pairs: Sequence[Pair], width: int, span: Span, limit: int, now: int
    ) -> dict[int, Bar]:
        if span.empty:
            return {}
        last = None
        if span.start < self._spans.reach(now):
            last = await self._skip(pairs, width, span, limit + 1)
        return await self._load(pairs, width, Span(span.start, span.end if last is None else last), now)

    async def _skip(
        self, pairs: Sequence[Pair], width: int, span: Span, candles: int, *, backwards: bool = False
    ) -> int | None:
        """How far to read, counted in rows, for as many candles and not a table more; None for all of it.

        Raises:
            NothingCanAnswer: PostgreSQL is away.
        """
        if width % self._interval:
            return None  # Candles finer than rows: there is an hour of them at most.
        try:
            rows = candles * width // self._interval
            reached = await self._spans.skip(pairs, span, rows, backwards=backwards)
        except StoreAway:
            raise NothingCanAnswer from None
        if reached is None:
            return None
        return floor_to(reached, width) if backwards else ceil_to(reached, width)

    async def _load(self, pairs: Sequence[Pair], width: int, span: Span, now: int) -> dict[int, Bar]:
        """The candles that begin in the span, whose bounds are multiples of `width`.

        Raises:
            NothingCanAnswer: one of them is not known for sure.
        """
        if span.empty:
            return {}
        unknown = self._spans.unknown()
        overlaps = span.start < ceil_to(unknown.end, width) and span.end > floor_to(unknown.start, width)
        if overlaps and not unknown.empty:
            raise NothingCanAnswer
        reach = self._spans.reach(now)
        rows_end = floor_to(reach, self._interval)
        # What is gone from there on back would make a candle that lacks its beginning.
        told = reach if width % self._interval else min(reach, self._spans.rows_start(now))
        span = Span(max(span.start, ceil_to(told, width)), span.end)
        parts: list[tuple[int, Bar]] = []
        if span.start < rows_end and width % self._interval == 0:
            try:
                rows = await self._spans.rows(pairs, Span(span.start, min(rows_end, span.end)), width)
            except StoreAway:
                raise NothingCanAnswer from None
            parts.extend(part for buckets in rows.values() for part in buckets.items())
        if span.end > reach:
            bars = await self._spans.bars(
                pairs, Span(max(span.start, reach), span.end), by_second=width < MINUTE
            )
            parts.extend(part for of_pair in bars.values() for part in of_pair)
        return bucketed(parts, width)

    def _candle(self, start: int, width: int, bar: Bar, now: int) -> Candle:
        return Candle(
            start=start,
            end=start + width,
            open=bar.open,
            high=bar.max,
            low=bar.min,
            close=bar.close,
            average=bar.average,
            updates=bar.count,
            closed=start + width + self._grace <= now,
        )
