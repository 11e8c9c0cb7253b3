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
    """When rows are compared: all of them whenever the lease was taken again, then some every few seconds."""

    def __init__(self) -> None:
        self._lease = 0
        """The lease of the database under which this was asked for last."""
        self._compared_lease = 0
        """The lease under which all rows were compared last."""
        self._own_lease = 0
        """The lease under which those of this boot were, as long as the history of earlier ones is unread."""
        self._next = -math.inf
        """When to compare again (seconds of Trio's clock)."""

    def due(self, lease: int, *, history_read: bool) -> bool:
        """Whether it is time to compare."""
        if lease != self._lease:
            self._lease, self._next = lease, -math.inf
        return trio.current_time() >= self._next if history_read else lease != self._own_lease

    def renewed(self, lease: int) -> bool:
        """Whether all rows are to be compared: the lease was taken again since."""
        return lease != self._compared_lease

    def compared(self, lease: int, *, history_read: bool) -> None:
        """What was due has been compared."""
        if history_read:
            self._compared_lease = lease
            self._next = trio.current_time() + COMPARISON_SECONDS
        else:
            self._own_lease = lease


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
        history_read = self._earlier.history.read
        if not self._schedule.due(lease, history_read=history_read):
            return
        renewed = self._schedule.renewed(lease)
        span = self._reach.span(history_read=history_read, own=renewed)
        adopted = self._book.rows.adopted
        adopted.forget(self._is_over)
        reach = adopted.reach
        await self._compare(span, renewed=renewed)
        if adopted.reach > reach:
            log.warning("bars missing from Redis", rows_answer_before=adopted.reach)
        self._schedule.compared(lease, history_read=history_read)
        if history_read:
            self._earlier.rows_told()

    def _is_over(self, pair: Pair, end: int) -> bool:
        """Whether nothing can be added any more to the row of the interval that ends at `end` (ms)."""
        bars = self._book.bars
        return end <= bars.pruned_to and end not in bars.unwritten.outboxes[pair]

    async def _compare(self, span: Span, *, renewed: bool) -> None:
        """Adopt the rows that have more updates than the bars, and have the others written again.

        Raises:
            StoreAway
        """
        book, bars, pairs, began = self._book, self._book.bars, self._pairs(), self._reach.began
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
            before = now if self._earlier.history.told else book.sequences.first
            counts = book.rows.counts(pair, span, before)
            for start, row in rows.items():
                if bars.pruned_to <= start < began and row.count > counts[start]:
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
