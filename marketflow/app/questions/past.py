"""The last update at or before a time: from the window, else the close of a bar or of a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from marketflow.app.answers import POSTGRES, REDIS, AnswerSource, NothingCanAnswer, PriceAt
from marketflow.app.knowledge import Knowledge
from marketflow.app.ports import StoreAway
from marketflow.app.questions.spans import PairSpans, Spans
from marketflow.domain.bars import BAR_WIDTH, Bar, merged
from marketflow.domain.periods import MINUTE, SECOND, Span, ceil_to, floor_to
from marketflow.domain.prices import Pair

EXACT: Final = "exact"


@attrs.frozen
class PastUpdates:
    """Finds the last update at or before a time.

    | the time | the update |
    |---|---|
    | is within the window, and Redis answers | that update |
    | is within the last hour | the close of the last one-second bar that ended by then |
    | is before that, or there is no such bar | the close of the last row whose interval ended by then |
    """

    spans: Spans

    async def at(self, pairs: list[Pair], time: int, now: int) -> PriceAt | None:
        """The last update of these pairs, of one symbol; None: there is none.

        Args:
            pairs: all of the same symbol.
            time: Unix ms, not after `now`.
            now: Unix ms.

        Raises:
            NothingCanAnswer: it may be in a store that is away.
        """
        spans = self.spans.of(pairs)
        await spans.catch_up(0)
        return await spans.consistent(lambda knowledge: self._at(spans, time, now, knowledge), now)

    async def _at(self, spans: PairSpans, time: int, now: int, knowledge: Knowledge) -> PriceAt | None:
        bars_from = ceil_to(knowledge.bars_from, BAR_WIDTH)
        if time >= max(now - self.spans.window_length, bars_from):
            exact = await spans.to_the_ms(Span(bars_from, time + 1), None)
            if exact is not None and exact.bars:
                return _close(exact.bars, time, EXACT, REDIS)
        seconds = Span(bars_from, floor_to(time, BAR_WIDTH))
        if not seconds.empty:
            bars = _merged(await spans.bars(seconds))
            if bars:
                return _close(bars, time, _length(BAR_WIDTH), await spans.source())
        return await self._in_rows(spans, time, knowledge)

    async def _in_rows(self, spans: PairSpans, time: int, knowledge: Knowledge) -> PriceAt | None:
        """The close of the last row that ended by then.

        Raises:
            NothingCanAnswer: PostgreSQL is away, or a later update may be in bars that were not read yet.
        """
        interval = self.spans.interval
        end = min(floor_to(time, interval), knowledge.bars_from)
        try:
            # The last row of any of the pairs: that of another one, from before it, closed earlier.
            reached = await spans.skip(Span(0, end), 1, backwards=True)
            span = Span(0 if reached is None else floor_to(reached, interval), end)
            rows = await spans.rows(span, interval)
        except StoreAway:
            raise NothingCanAnswer from None
        bars = _merged({pair: list(of_pair.items()) for pair, of_pair in rows.items()})
        since = max((bar.close_time for bar in bars.values()), default=0)
        if knowledge.has_unread(Span(since, end)):
            raise NothingCanAnswer
        return _close(bars, time, _length(interval), POSTGRES) if bars else None


def _merged(parts: Mapping[Pair, list[tuple[int, Bar]]]) -> dict[Pair, Bar]:
    """The bars of each pair merged; pairs without any are left out."""
    found = {pair: merged([bar for _, bar in of_pair]) for pair, of_pair in parts.items()}
    return {pair: bar for pair, bar in found.items() if bar is not None}


def _close(bars: Mapping[Pair, Bar], time: int, resolution: str, source: AnswerSource) -> PriceAt:
    """The last update of all pairs. Of equal timestamps that of the later name, as the newest one is."""
    exchange, symbol = max(bars, key=lambda pair: (bars[pair].close_time, pair[0]))
    bar = bars[exchange, symbol]
    return PriceAt(
        symbol=symbol,
        exchange=exchange,
        price=bar.close,
        timestamp=bar.close_time,
        time=time,
        resolution=resolution,
        source=source,
    )


def _length(width: int) -> str:
    return f"{width // MINUTE}m" if width % MINUTE == 0 else f"{width // SECOND}s"
