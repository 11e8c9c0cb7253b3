"""Rows compared with bars: each store may have lost what the other still tells."""

from __future__ import annotations

import math
from typing import Final

import structlog
import trio

from marketflow.app.ports import BARS_KEPT, AggregateStore, Clock
from marketflow.app.share.book import Book
from marketflow.app.share.flushing import Flusher
from marketflow.app.watch.clocks import DataClock
from marketflow.domain.periods import Span, floor_to

log = structlog.get_logger()

COMPARISON_SECONDS: Final = 5.0
"""How often rows are compared with the bars of earlier boots."""


class Comparison:
    """Compares the rows of the last hour with the bars of the book.

    Rows of the time before this boot with more updates than the bars show that Redis lost bars while no
    service ran: rows then answer for the time up to there. This is done every few seconds, since somebody may
    bring in rows.

    Rows that are missing, or have fewer updates than the bars, show that PostgreSQL has come back in an older
    state: a standby that lagged has taken over, or a backup was restored. They are written again. Either ends
    the connection that holds the lock, so it is looked for whenever the lock was taken again. Rows that
    somebody deletes while the connection stays are not written again before that: it may be on purpose.
    """

    def __init__(
        self,
        *,
        book: Book,
        flusher: Flusher,
        store: AggregateStore,
        clock: Clock,
        data_clock: DataClock,
        grace: int,
        retention: int | None,
    ) -> None:
        """As for the aggregator."""
        self._book = book
        self._flusher = flusher
        self._store = store
        self._clock = clock
        self._data_clock = data_clock
        self._grace = grace
        self._retention = retention
        self._lease = 0
        """The lease of the store under which this was asked for last."""
        self._compared_lease = 0
        """The lease under which all rows were compared last."""
        self._own_lease = 0
        """The lease under which those of this boot were, as long as the history of earlier ones is unread."""
        self._next = -math.inf
        """When to compare again (seconds of Trio's clock)."""
        self.done = False
        """Whether rows have told what Redis has lost of the last hour."""

    async def run(self, lease: int) -> None:
        """Compare what is to be compared now, under this lease of the store.

        Raises:
            StoreAway
        """
        if lease != self._lease:
            self._lease, self._next = lease, -math.inf
        renewed, known = lease != self._compared_lease, self._flusher.history.value.read
        if trio.current_time() < self._next if known else lease == self._own_lease:
            return
        bars, now, began = self._book.bars, self._clock.now(), self._began
        # By the clock of the data: while ours is days ahead there are rows to be compared all the same.
        newest = self._data_clock.now() or now
        first = max(floor_to(min(now, newest) - BARS_KEPT, bars.interval), bars.pruned_to)
        if not known:
            # Of the time before this boot nothing can be said yet.
            first = max(first, began)
        closed = floor_to(now - self._grace, bars.interval)
        lost = await self._compare(Span(first, max(began, closed) if renewed else began), renewed=renewed)
        if lost > first:
            log.warning("bars are missing from Redis, rows answer for the time before", before=lost)
            bars.forget(lost)
        if known:
            self._compared_lease = lease
            self.done = True
            self._flusher.doubt_history(doubted=False)
            self._next = trio.current_time() + COMPARISON_SECONDS
        else:
            self._own_lease = lease

    async def _compare(self, span: Span, *, renewed: bool) -> int:
        """Returns up to when (ms) bars are missing.

        Raises:
            StoreAway
        """
        bars, pairs, began = self._book.bars, self._flusher.pairs, self._began
        lost, missing = span.start, 0
        # An hour after the start there is nothing left to compare, and nothing to be asked.
        stored = {} if span.empty else await self._store.bars(pairs, span, bars.interval)
        for pair in pairs:
            rows = stored.get(pair, {})
            if not rows and not renewed:
                continue
            await trio.lowlevel.checkpoint()  # An hour of many symbols must not hold up everybody else.
            counts = self._book.rows.counts(pair, span)
            for start, row in rows.items():
                if bars.pruned_to <= start < began and row.count > counts[start]:
                    lost = max(lost, start + bars.interval)
            if renewed:
                fuller = [
                    start
                    for start, count in counts.items()
                    if start >= self._kept_from and (start not in rows or rows[start].count < count)
                ]
                missing += self._book.rows.mark(pair, fuller)
        if missing:
            log.warning("rows are missing from PostgreSQL, they are written again", rows=missing)
        return lost

    @property
    def _began(self) -> int:
        """The start (ms) of the interval in which this boot began to accept updates."""
        began_at = self._clock.now() if self._book.began_at is None else self._book.began_at
        return floor_to(began_at, self._book.bars.interval)

    @property
    def _kept_from(self) -> int:
        """Rows of intervals that start before that (ms) may have been deleted because of their age."""
        return 0 if self._retention is None else self._data_clock.now() - self._retention
