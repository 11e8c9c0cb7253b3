"""Which intervals can be compared: those whose bars this boot knows, and whose rows may be there."""

from __future__ import annotations

from marketflow.app.instruments.clocks import DataClock
from marketflow.app.ports import BARS_KEPT
from marketflow.app.share.beginning import Beginning
from marketflow.app.share.book import Book
from marketflow.app.share.closing import Closing
from marketflow.domain.periods import Span, floor_to


class Reach:
    """How far back rows are compared, and up to when."""

    def __init__(self, book: Book, *, beginning: Beginning, closing: Closing, data_clock: DataClock) -> None:
        self._book = book
        self._beginning = beginning
        self._closing = closing
        self._data_clock = data_clock

    @property
    def began(self) -> int:
        """The start (ms) of the interval in which this boot began to accept updates."""
        began_at = self._beginning.at
        return floor_to(self._closing.now if began_at is None else began_at, self._book.bars.interval)

    def span(self, *, history_read: bool, own: bool) -> Span:
        """The intervals to compare.

        Those before this boot, once the bars of earlier boots have been read; and its `own` ones that have
        bars. The clock does not tell which of these are closed, since it may be behind. It need not: an
        interval that is open has no row, and is to be written anyway.
        """
        bars, began, now = self._book.bars, self.began, self._closing.now
        # The data's clock counts too: if ours is days ahead, its last hour has no rows to compare.
        newest = self._data_clock.now() or now
        first = max(floor_to(min(now, newest) - BARS_KEPT, bars.interval), bars.pruned_to)
        last = floor_to(max(bars.newest_bars.times.values(), default=0), bars.interval) + bars.interval
        return Span(first if history_read else max(first, began), max(began, last) if own else began)
