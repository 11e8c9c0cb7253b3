"""Candles: bars of regular intervals over rows, one-second bars and the open interval, page by page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from marketflow.app.answers import Candle, Candles, NothingCanAnswer
from marketflow.app.ports import StoreAway
from marketflow.app.spans import Spans, bucketed
from marketflow.domain.bars import Bar
from marketflow.domain.periods import CANDLE_INTERVALS, DAY, Span, ceil_to, floor_to
from marketflow.domain.prices import Pair

WIDEN: Final = 8
"""Where a page is not full, because intervals without updates are omitted, look so many times as far."""


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
        if start is None:
            bars = await self._newest(pairs, width, last, limit, now)
            shown = sorted(bars)[-limit:]
            following = None
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
        )

    async def _newest(
        self, pairs: Sequence[Pair], width: int, last: int, limit: int, now: int
    ) -> dict[int, Bar]:
        known = self._known_from(width, now)
        span = limit * width
        while True:
            first = max(last - span, 0)
            try:
                bars = await self._load(pairs, width, Span(first, last), now)
            except NothingCanAnswer:
                # The newest there are, if fewer: what is older is in a store that is away.
                bars = await self._load(pairs, width, Span(known, last), now)
                if not bars:
                    raise
                return bars
            if len(bars) >= limit or first == 0 or (first <= known and width % self._interval):
                return bars
            span *= WIDEN

    async def _from(
        self, pairs: Sequence[Pair], width: int, whole: Span, limit: int, now: int
    ) -> dict[int, Bar]:
        span = (limit + 1) * width
        while True:
            last = min(whole.start + span, whole.end)
            bars = await self._load(pairs, width, Span(whole.start, last), now)
            if len(bars) > limit or last >= whole.end:
                return bars
            span *= WIDEN

    async def _load(self, pairs: Sequence[Pair], width: int, span: Span, now: int) -> dict[int, Bar]:
        """The candles that begin in the span, whose bounds are multiples of `width`.

        Raises:
            NothingCanAnswer: one of them is not known for sure.
        """
        if span.empty:
            return {}
        reach, rows_end = self._spans.reach(now), self._spans.rows_end(now)
        if rows_end < reach and span.start < ceil_to(reach, width) and span.end > floor_to(rows_end, width):
            raise NothingCanAnswer  # The interval in which this boot began: earlier boots' part is unknown.
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
            fields, _ = await self._spans.second_bars(pairs, Span(max(span.start, reach), span.end))
            for bars in fields.values():
                parts.extend((second, bar) for (second, _), bar in bars.items())
        return bucketed(parts, width)

    def _known_from(self, width: int, now: int) -> int:
        """From when on (a multiple of `width`, ms) candles need no rows."""
        return ceil_to(self._spans.reach(now), width)

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
