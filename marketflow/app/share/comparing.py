"""Rows compared with bars: each store may have lost what the other still tells."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import structlog
import trio

from marketflow.app.instruments.clocks import DataClock
from marketflow.app.ports import BARS_KEPT, AggregateStore
from marketflow.app.share.book import Book
from marketflow.app.share.closing import Closing
from marketflow.app.share.earlier_boots import EarlierBoots
from marketflow.app.share.history import History
from marketflow.app.share.retention import Retention
from marketflow.domain.periods import Span, floor_to
from marketflow.domain.prices import Pair

log = structlog.get_logger()

COMPARISON_SECONDS: Final = 5.0
"""How often rows are compared with the bars of earlier boots."""


class Reach:
    """How far back rows are compared, and up to when."""

    def __init__(self, book: Book, *, closing: Closing, data_clock: DataClock, retention: Retention) -> None:
        self._book = book
        self._closing = closing
        self._data_clock = data_clock
        self._retention = retention

    @property
    def began(self) -> int:
        """The start (ms) of the interval in which this boot began to accept updates."""
        began_at = self._closing.now if self._book.began_at is None else self._book.began_at
        return floor_to(began_at, self._book.bars.interval)

    @property
    def kept_from(self) -> int:
        """Rows of intervals that start before that (ms) may have been deleted because of their age."""
        return self._retention.kept_from

    def span(self, *, history_read: bool, own: bool) -> Span:
        """The intervals to compare.

        Those before this boot, once the bars of earlier boots have been read; and its `own` closed ones.
        """
        bars, began, now = self._book.bars, self.began, self._closing.now
        # The data's clock counts too: if ours is days ahead, its last hour has no rows to compare.
        newest = self._data_clock.now() or now
        first = max(floor_to(min(now, newest) - BARS_KEPT, bars.interval), bars.pruned_to)
        closed = floor_to(self._closing.closed_to, bars.interval)
        return Span(first if history_read else max(first, began), max(began, closed) if own else began)


class Schedule:
    """When rows are compared: all of them whenever more can be known, then some every few seconds.

    More can be known after the lease was taken again, and after the bars of earlier boots were read.
    """

    def __init__(self) -> None:
        self._compared = (0, 0)
        """The lease of the database, and the reading of earlier boots' bars, that all rows were compared under."""
        self._next = -math.inf
        """When to compare again (seconds of Trio's clock)."""

    def renewed(self, lease: int, history: History) -> bool:
        """Whether all rows are to be compared."""
        return (lease, history.done) != self._compared

    def due(self, lease: int, history: History) -> bool:
        """Whether it is time to compare.

        Rows are searched for what Redis has lost only while the bars are up to date: those that are unread
        may have it.
        """
        again = history.up_to_date and trio.current_time() >= self._next
        return again or self.renewed(lease, history)

    def compared(self, lease: int, history: History) -> None:
        """What was due has been compared."""
        self._compared = (lease, history.done)
        self._next = trio.current_time() + COMPARISON_SECONDS


class Comparison:
    """Compares the rows of the last hour with the bars of the book.

    Rows of the time before this boot with more updates than the bars show that Redis lost bars while no
    service ran. They are adopted, late updates are added to them, and rows answer for the time up to there.
    This is done every few seconds, since somebody may bring in rows.

    Rows that are missing, or have fewer updates than the bars, show that PostgreSQL has come back in an older
    state: a standby that lagged has taken over, or a backup was restored. They are written again. Either ends
    the connection that holds the lock, so it is looked for whenever the lock was taken again. Rows that
    somebody deletes while the connection stays are not written again before that: it may be on purpose.
    """

    def __init__(
        self,
        *,
        book: Book,
        earlier: EarlierBoots,
        store: AggregateStore,
        pairs: Callable[[], Sequence[Pair]],
        reach: Reach,
    ) -> None:
        self._book = book
        self._earlier = earlier
        self._store = store
        self._pairs = pairs
        self._reach = reach
        self._schedule = Schedule()

    async def run(self, lease: int) -> None:
        """Compare what is to be compared now, under this lease of the database.

        Raises:
            StoreAway
        """
        history = self._earlier.history
        if self._earlier.reading or not self._schedule.due(lease, history):
            return
        renewed = self._schedule.renewed(lease, history)
        span = self._reach.span(history_read=history.read, own=renewed)
        adopted = self._book.rows.adopted
        adopted.forget(self._is_over)
        reach = adopted.reach
        await self._compare(span, history, renewed=renewed)
        if adopted.reach > reach:
            log.warning("bars missing from Redis", rows_answer_before=adopted.reach)
        self._schedule.compared(lease, history)
        if history.read:
            self._earlier.rows_told()

    def _is_over(self, pair: Pair, end: int) -> bool:
        """Whether nothing can be added any more to the row of the interval that ends at `end` (ms)."""
        bars = self._book.bars
        return end <= bars.pruned_to and end not in bars.unwritten.outboxes[pair]

    async def _compare(self, span: Span, history: History, *, renewed: bool) -> None:
        """Adopt the rows that have more updates than the bars, and have the others written again.

        Raises:
            StoreAway
        """
        book, bars, pairs, began = self._book, self._book.bars, self._pairs(), self._reach.began
        # Bars that are yet to be read may have what a row has more. It cannot be waited for if no row of that
        # time can be written before.
        adopts = history.up_to_date or not history.told
        missing = 0
        # An hour after the start there is nothing left to compare, and nothing to be asked.
        stored = {} if span.empty else await self._store.bars(pairs, span, bars.interval)
        for pair in pairs:
            rows = stored.get(pair, {})
            if not rows and not renewed:
                continue
            await trio.lowlevel.checkpoint()  # An hour of many symbols must not hold up everybody else.
            # No row of the time before this boot is written until they were compared for the first time.
            # Until then they have none of our updates, after that perhaps all.
            now = book.sequences.next
            before = now if history.told else book.sequences.first
            counts = book.rows.counts(pair, span, before)
            for start, row in rows.items():
                if adopts and bars.pruned_to <= start < began and row.count > counts[start]:
                    book.rows.adopted.adopt(pair, start + bars.interval, row, before)
            if renewed:
                if before != now:
                    counts = book.rows.counts(pair, span, now)
                fuller = [
                    start
                    for start, count in counts.items()
                    if start >= self._reach.kept_from and (start not in rows or rows[start].count < count)
                ]
                missing += book.rows.mark(pair, fuller)
        if missing:
            log.warning("rows missing from PostgreSQL", rows=missing)
