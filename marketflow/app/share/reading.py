"""Reads the bars that the window has: those of the open minutes first, then all.

An hour of many symbols takes seconds to read. The open minutes are a few hundredths of that, and questions
about them need no more. These bars are read once more with all others. That changes nothing: a bar is known
by its field, and is replaced only by one with more updates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog
import trio

from marketflow.app.ports import Clock, StoredBars, StoreRefuses, Window
from marketflow.app.share.beginning import Beginning
from marketflow.app.share.book import Book
from marketflow.app.share.earlier_boots import EarlierBoots
from marketflow.domain.periods import MINUTE, Span, ceil_to, floor_to
from marketflow.domain.prices import FUTURE_TOLERANCE, Pair

log = structlog.get_logger()

Stored = Mapping[Pair, StoredBars]
"""The bars of each pair, as the window has them."""

BEFORE: Final = MINUTE
"""How long (ms) before this boot began the bars start that are read first."""
LONGEST: Final = 10 * MINUTE
"""If the bars that are to be read first are of a longer time (ms), all are read at once."""


class OpenMinutes:
    """Which minutes other boots may have added to lately, or this one is adding to."""

    def __init__(self, beginning: Beginning, clock: Clock) -> None:
        self._beginning = beginning
        self._clock = clock

    @property
    def span(self) -> Span:
        """Whole minutes (ms): from before this boot began, to where other boots can have accepted updates."""
        now, began_at = self._clock.now(), self._beginning.at
        if began_at is None:
            return Span(now, now)
        end = max(now, began_at) + FUTURE_TOLERANCE + 1
        return Span(floor_to(began_at - BEFORE, MINUTE), ceil_to(end, MINUTE))


class Reading:
    """Reads all bars, and lets the book adopt those of the open minutes before the others are read."""

    def __init__(
        self,
        *,
        book: Book,
        window: Window,
        earlier: EarlierBoots,
        pairs: Callable[[], Sequence[Pair]],
        open_minutes: OpenMinutes,
    ) -> None:
        """`pairs`: the configured ones, and others that the book has bars of."""
        self._book = book
        self._window = window
        self._earlier = earlier
        self._pairs = pairs
        self._open_minutes = open_minutes

    async def read(self, number: int) -> Stored:
        """All bars that the window has, of all boots. The `number` of the reading is that of the history.

        Raises:
            StoreAway
        """
        pairs = self._pairs()
        if not self._earlier.history.up_to_date:
            await self._read_newest(pairs, number)
            pairs = list(dict.fromkeys([*pairs, *await self._window.pairs_with_bars()]))
        return await self._window.all_bars(pairs)

    async def _read_newest(self, pairs: Sequence[Pair], number: int) -> None:
        span = self._open_minutes.span
        if span.empty or span.end - span.start > LONGEST:
            return
        try:
            newest = await self._window.bars_within(pairs, span)
        except StoreRefuses as error:
            # Without the rights for it all bars can still be read. Questions wait a little longer.
            log.warning("newest bars not read first", error=str(error))
            return
        for pair, bars in newest.items():
            self._book.bars.adopt_minutes(pair, bars.values())
            await trio.lowlevel.checkpoint()
        self._book.follow_others()
        self._earlier.newest_read(number, span)
