"""Implements the ports of questions and the live stream with Redis alone, like a node without feeds.

It reads all bars of a question's pairs each time. That is slow, but enough to show what the ports require. It
only knows what Redis has acknowledged. So it does not know:

- pending or dropped updates,
- which rows of the time before the last hour are not written yet,
- whether Redis was emptied and is not restored yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import trio

from marketflow.app.ports import BARS_KEPT, Clock, FieldBars, StoreAway, StoredBars, Window
from marketflow.app.share.pair_bars import genuine
from marketflow.app.share.second_bars import PRUNE_MARGIN
from marketflow.domain.bars import Bar, merged
from marketflow.domain.periods import MINUTE, Span, floor_to
from marketflow.domain.prices import Pair

POLL_SECONDS = 0.01
"""How often the bars are read while a client of the live stream waits."""


def fields_of(found: Mapping[Pair, StoredBars]) -> dict[Pair, FieldBars]:
    """The bars of each pair by field, of those that a window has read, without foreign ones."""
    return {
        pair: {field: bar for minute in minutes.values() for field, bar in genuine(minute)[0].items()}
        for pair, minutes in found.items()
    }


class RedisBars:
    """Implements KnownBars and Standing. While Redis does not answer, nothing is known."""

    def __init__(self, window: Window, pairs: Sequence[Pair], *, clock: Clock, interval: int) -> None:
        """`pairs` are those of both modes, `interval` (ms) is that of the aggregates.

        The clock must agree with that of the process that writes the bars: it tells which bars that process
        has removed from Redis by now.
        """
        self.forgotten_to = 0
        """Bars before this time (ms) may have been removed from Redis before they were read last."""
        self.began_at: int | None = None
        self.history_known = False
        """Whether Redis answered the last time: it has the bars of all boots."""
        self._window = window
        self._pairs = pairs
        self._clock = clock
        self._interval = interval
        self._read: dict[Pair, FieldBars] = {}
        self._turn = trio.Lock()
        """One read at a time: otherwise an older answer could replace a newer one."""

    def forget(self, before: int) -> None:
        """Note that Redis has lost bars from before this time (ms)."""
        self.forgotten_to = max(self.forgotten_to, before)

    # ---- KnownBars ----

    @property
    def arrived(self) -> int:
        newest: dict[str, int] = {}
        for (exchange, _), bars in self._read.items():
            for bar in bars.values():
                newest[exchange] = max(newest.get(exchange, 0), bar.close_sequence + 1)
        return sum(newest.values())

    async def catch_up(self, pairs: Sequence[Pair]) -> None:
        async with self._turn:
            try:
                found = await self._window.all_bars(pairs)
            except StoreAway:
                self._read.clear()
                self.history_known = False
                return
            self._read |= fields_of(found)
            self.history_known = True
            self.forget(floor_to(self._clock.now() - BARS_KEPT - PRUNE_MARGIN, self._interval))

    async def wait_for_updates(self, since: int) -> int:
        while True:
            await self.catch_up(self._pairs)
            if self.arrived > since:
                return self.arrived
            await trio.sleep(POLL_SECONDS)

    def newest(self, pair: Pair) -> Bar | None:
        bars = self._read.get(pair, {}).values()
        return max(bars, key=lambda bar: (bar.close_time, bar.close_sequence), default=None)

    def bar(self, pair: Pair, span: Span) -> Bar | None:
        return merged(bar for _, bar in self.seconds(pair, span))

    def seconds(self, pair: Pair, span: Span) -> list[tuple[int, Bar]]:
        return [(second, bar) for (second, _), bar in self._read.get(pair, {}).items() if second in span]

    def minutes(self, pair: Pair, span: Span) -> list[tuple[int, Bar]]:
        found: dict[int, list[Bar]] = {}
        for second, bar in self.seconds(pair, span):
            minute = floor_to(second, MINUTE)
            whole = span.start <= minute and minute + MINUTE <= span.end
            found.setdefault(minute if whole else second, []).append(bar)
        return [(start, whole) for start, bars in found.items() if (whole := merged(bars)) is not None]

    def unwritten(self, pair: Pair, span: Span) -> dict[int, Bar]:  # noqa: ARG002 - a port
        return {}

    def may_lack(self, exchange: str) -> bool:  # noqa: ARG002 - a port
        return True  # The owner of the exchange may have dropped updates, which Redis does not show.

    # ---- Standing ----

    @property
    def known_from(self) -> int:
        return 0 if self.history_known else 2**62

    async def wait_for_history(self, since: int) -> None:
        pass  # `catch_up` reads it.

    async def can_answer_from_redis(self) -> bool:
        return self.history_known

    async def flushed(self) -> bool:
        return self.history_known
