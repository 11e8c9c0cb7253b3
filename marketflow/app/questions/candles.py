"""Candles: bars of regular intervals, page by page, made of rows and one-second bars."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from marketflow.app.answers import Candle, Candles, NothingCanAnswer, volumes_of
from marketflow.app.knowledge import BARS, ROWS, Knowledge
from marketflow.app.ports import StoreAway
from marketflow.app.questions.spans import PairSpans, Spans, bucketed
from marketflow.domain.bars import Bar, merged_over
from marketflow.domain.periods import CANDLE_INTERVALS, DAY, MINUTE, Interval, Span
from marketflow.domain.prices import Pair


class CandlePages:
    """Reads pages of candles."""

    def __init__(self, spans: Spans, *, interval: int, grace: int) -> None:
        """`interval` is that of the aggregates; a candle is closed `grace` after its end. Both in ms."""
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
        """At most `limit` candles that begin within [start, end), oldest first.

        Without `start` these are the newest ones.
        Candles finer than the aggregates go back as far as the one-second bars.

        Raises:
            NothingCanAnswer: a store that is needed for the page is away.
        """
        buckets = CANDLE_INTERVALS[interval]
        # The newest candles may be of any age, since those without updates are left out.
        spans = self._spans.of(pairs)
        await spans.catch_up(0 if start is None else buckets.ceil(start))
        # No update is a day ahead of our clock. The bound keeps out dates that a store cannot hold.
        last = buckets.ceil(now if end is None else min(end, now + DAY))
        known_from = following = None
        if start is None:
            bars, known_from = await spans.consistent(
                lambda knowledge: self._newest(spans, buckets, last, limit, knowledge), now
            )
            shown = sorted(bars)[-limit:]
        else:
            span = Span(buckets.ceil(start), last)
            bars = await spans.consistent(
                lambda knowledge: self._from(spans, buckets, span, limit, knowledge), now
            )
            starts = sorted(bars)
            shown = starts[:limit]
            following = starts[limit] if len(starts) > limit else None
        return Candles(
            symbol=pairs[0][1],
            exchange=exchange,
            interval=interval,
            candles=[self._candle(first, buckets.width, bars[first], now) for first in shown],
            next=following,
            known_from=known_from,
        )

    async def _newest(
        self, spans: PairSpans, buckets: Interval, last: int, limit: int, knowledge: Knowledge
    ) -> tuple[dict[int, Bar], int | None]:
        """The newest candles; if older ones cannot be read, also from which time (ms) on they are known."""
        known = buckets.ceil(knowledge.bars_from)
        bars = await self._load(spans, buckets, Span(known, last), knowledge)
        if len(bars) >= limit:
            return bars, None
        try:
            first = await self._skip(spans, buckets, Span(0, min(last, known)), limit, backwards=True)
            older = await self._load(spans, buckets, Span(first or 0, min(last, known)), knowledge)
        except NothingCanAnswer:
            # Fewer than `limit`: older ones are in a store that is away.
            if not bars:
                raise
            return bars, known
        return older | bars, None

    async def _from(
        self, spans: PairSpans, buckets: Interval, span: Span, limit: int, knowledge: Knowledge
    ) -> dict[int, Bar]:
        if span.empty:
            return {}
        last = None
        if span.start < knowledge.bars_from:
            last = await self._skip(spans, buckets, span, limit + 1)
        return await self._load(
            spans, buckets, Span(span.start, span.end if last is None else last), knowledge
        )

    async def _skip(
        self, spans: PairSpans, buckets: Interval, span: Span, candles: int, *, backwards: bool = False
    ) -> int | None:
        """How far into the span to read for so many candles; None for all of it.

        It is found by counting rows, so that a page does not read the whole table.

        Raises:
            NothingCanAnswer: PostgreSQL is away.
        """
        if buckets.width % self._interval:
            return None  # Such candles are made of one-second bars: there is an hour of them at most.
        try:
            rows = candles * buckets.width // self._interval
            reached = await spans.skip(span, rows, backwards=backwards)
        except StoreAway:
            raise NothingCanAnswer from None
        if reached is None:
            return None
        return buckets.floor(reached) if backwards else buckets.ceil(reached)

    async def _load(
        self, spans: PairSpans, buckets: Interval, span: Span, knowledge: Knowledge
    ) -> dict[int, Bar]:
        """The candles that begin in the span, whose bounds are those of candles.

        Candles whose beginning was forgotten or deleted are left out.

        Raises:
            NothingCanAnswer: the updates of one of them are not known for sure, or PostgreSQL is away.
        """
        if span.empty:
            return {}
        if knowledge.has_unread(span):
            raise NothingCanAnswer
        found: defaultdict[str, list[tuple[int, Bar]]] = defaultdict(list)
        for part in knowledge.parts(Span(max(span.start, knowledge.buckets_from(buckets)), span.end)):
            if part.origin == ROWS:
                try:
                    # Their buckets begin at the epoch, on a Thursday, so weeks are made of days.
                    rows = await spans.rows(part.span, min(buckets.width, DAY))
                except StoreAway:
                    raise NothingCanAnswer from None
                for (exchange, _), of_rows in rows.items():
                    found[exchange] += of_rows.items()
            elif part.origin == BARS:
                bars = await spans.bars(part.span, by_second=buckets.width < MINUTE)
                for (exchange, _), of_pair in bars.items():
                    found[exchange] += of_pair
        return _over_exchanges({exchange: bucketed(of_one, buckets) for exchange, of_one in found.items()})

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
            **volumes_of(bar),
            closed=start + width + self._grace <= now,
        )


def _over_exchanges(candles: Mapping[str, Mapping[int, Bar]]) -> dict[int, Bar]:
    """The candles of all exchanges, by start (ms), merged."""
    groups: defaultdict[int, dict[str, Bar]] = defaultdict(dict)
    for exchange, of_one in candles.items():
        for start, bar in of_one.items():
            groups[start][exchange] = bar
    return {start: whole for start, group in groups.items() if (whole := merged_over(group)) is not None}
