"""Rows compared with bars: each store may have lost what the other still tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isclose

import structlog
import trio

from marketflow.app.ports import AggregateStore
from marketflow.app.share.book import Book
from marketflow.app.share.comparison_schedule import ComparisonSchedule
from marketflow.app.share.earlier_boots import EarlierBoots
from marketflow.app.share.reach import Reach
from marketflow.domain.bars import Bar, merged
from marketflow.domain.columns import Traded
from marketflow.domain.periods import MINUTE, Span
from marketflow.domain.prices import Pair

log = structlog.get_logger()


class Comparison:
    """Compares the rows of the last hour with the bars of the book.

    Rows of the time before this boot with more updates than the bars show that Redis lost bars while no
    service ran. They are adopted, late updates are added to them, and rows answer for the time up to there.
    Every few seconds the rows that have changed are looked at, since somebody may bring in rows.

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
        kept_from: Callable[[], int],
    ) -> None:
        """`kept_from`: rows of intervals that start before that (ms) may have been deleted: they are old."""
        self._book = book
        self._earlier = earlier
        self._store = store
        self._pairs = pairs
        self._reach = reach
        self._kept_from = kept_from
        self._schedule = ComparisonSchedule()

    async def run(self, lease: int) -> None:
        """Compare what is to be compared now, under this lease of the database.

        Raises:
            StoreAway
        """
        history = self._earlier.history
        if self._earlier.reading or history.unsure or not self._schedule.due(lease, history):
            return
        renewed = self._schedule.renewed(lease, history)
        span = self._reach.span(history_read=history.read, own=renewed)
        adopted = self._book.rows.adopted
        adopted.forget(self._is_over)
        reach = adopted.reach
        rows = await self._compare(span, renewed=renewed)
        self._schedule.compared(lease, history)
        if history.read:
            self._earlier.rows_told()
        if renewed:
            await self._keep_right(rows)
        if adopted.reach > reach:
            log.warning("bars missing from Redis", rows_answer_before=adopted.reach)

    def _is_over(self, pair: Pair, end: int) -> bool:
        """Whether nothing can be added any more to the row of the interval that ends at `end` (ms)."""
        bars = self._book.bars
        return end <= bars.pruned_to and end not in bars.unwritten.outboxes[pair]

    async def _compare(self, span: Span, *, renewed: bool) -> Mapping[Pair, Mapping[int, Bar]]:
        """Adopt the rows that have more updates than the bars, and have those with fewer written again.

        Counts decide that. Questions wait for it, and to look at millions of bars would take far longer.

        Returns:
            The rows of each pair, by the start of their interval (ms).

        Raises:
            StoreAway
        """
        if span.empty:
            return {}  # An hour after the start there is nothing left to compare, and nothing to be asked.
        pairs, missing = self._pairs(), 0
        with self._book.rows.adopted.reading():
            stored = await self._store.bars(pairs, span, self._book.bars.interval)
            for pair in pairs:
                rows = stored.get(pair, {})
                changed = self._schedule.changed(pair, rows)
                if not changed and not renewed:
                    continue
                await trio.lowlevel.checkpoint()  # An hour of many symbols must not hold up everybody else.
                if not renewed or self._book.bars.interval != MINUTE:  # only minutes tell their counts
                    await self._book.bars.check(pair)
                self._adopt(pair, rows if renewed else {start: rows[start] for start in changed})
                if renewed:
                    missing += self._mark(pair, rows, span)
        if missing:
            log.warning("rows missing from PostgreSQL", rows=missing)
        return stored

    def _adopt(self, pair: Pair, rows: Mapping[int, Bar]) -> None:
        """Adopt those of the rows that have more updates than the bars."""
        history = self._earlier.history
        if history.told and not history.up_to_date:
            return  # Bars that are yet to be read may have what a row has more.
        bars, began = self._book.bars, self._reach.began
        before = {start: row for start, row in rows.items() if bars.pruned_to <= start < began}
        if not before:
            return
        # No row of the time before this boot is written until they were compared for the first time.
        # Until then they have none of our updates, after that all but those that came while they were read.
        # Only another boot may have written some with our updates, which it had from Redis.
        ours = history.told or self._another_accepted
        span = Span(min(before), max(before) + bars.interval)
        counts = self._book.rows.counts(pair, span, own=ours)
        for start, row in before.items():
            if row.count > counts[start] and not self._is_made(pair, start, row):
                lacks = self._lacks(pair, Span(start, start + bars.interval), ours=ours)
                self._book.rows.adopted.adopt(pair, start + bars.interval, row, lacks=lacks)
        self._book.rows.believed.believe(pair, before)

    @property
    def _another_accepted(self) -> bool:
        """Whether another boot has accepted updates since this one began.

        It had the stores for a while, for example because our machine stood still, and found our bars there.
        """
        others, sequences = self._book.bars.others.next_sequences, self._book.sequences
        return any(following > sequences.first_of(exchange) for exchange, following in others.items())

    def _is_made(self, pair: Pair, start: int, row: Bar) -> bool:
        """Whether all bars of the interval that starts then (ms), ours among them, make just this row."""
        span = Span(start, start + self._book.bars.interval)
        whole = self._book.rows.unwritten_between(pair, span).get(start)
        return whole is not None and _numbers(whole) == _numbers(row)

    async def _keep_right(self, rows: Mapping[Pair, Mapping[int, Bar]]) -> None:
        """Look at all bars, and keep the rows that they make as they are."""
        for pair in self._pairs():
            await self._book.bars.check(pair)
            self._book.rows.believed.looked_at(pair)
            self._keep(pair, rows.get(pair, {}))
            await trio.lowlevel.checkpoint()

    def _keep(self, pair: Pair, rows: Mapping[int, Bar]) -> None:
        """Rows that the bars make just like this need not be written: those of most minutes after a start."""
        bars, history = self._book.bars, self._earlier.history
        if not rows or not history.up_to_date:
            return
        span = Span(min(rows), max(rows) + bars.interval)
        for start, whole in self._book.rows.unwritten_between(pair, span).items():
            row = rows.get(start)
            if row is not None and _is_same(row, whole):
                self._book.rows.known(pair, start + bars.interval)

    def _lacks(self, pair: Pair, span: Span, *, ours: bool) -> Bar | None:
        """The updates of this boot that the row of an interval lacks.

        `ours`: the row has those that came before it was read.
        """
        if ours:
            return self._book.rows.adopted.arrived(pair, span.end)
        bars = self._book.bars
        return merged([bar for (_, boot), bar in bars.fields(pair, span).items() if boot == bars.boot])

    def _mark(self, pair: Pair, rows: Mapping[int, Bar], span: Span) -> int:
        """Have rows written again that are missing or have fewer updates than the bars; returns how many."""
        kept_from = self._kept_from()
        fuller = [
            start
            for start, count in self._book.rows.counts(pair, span, own=True).items()
            if start >= kept_from and (start not in rows or rows[start].count < count)
        ]
        return self._book.rows.mark(pair, fuller)


def _is_same(row: Bar, whole: Bar) -> bool:
    """Whether a row is as these bars make it, but for rounding."""
    if _numbers(row) != _numbers(whole) or not isclose(row.average, whole.average, rel_tol=1e-9):
        return False
    if row.traded is None or whole.traded is None:
        return row.traded is whole.traded
    return row.traded.updates == whole.traded.updates and all(
        isclose(one or 0, other or 0, rel_tol=1e-9)
        for one, other in zip(_sums(row.traded), _sums(whole.traded), strict=True)
    )


def _sums(traded: Traded) -> tuple[float | None, ...]:
    return traded.volume, traded.quote, traded.buy, traded.sell


def _numbers(row: Bar) -> tuple[float, ...]:
    """What two rows of the same updates have in common. Averages differ in their last digits."""
    return (
        row.count,
        row.min,
        row.max,
        row.open,
        row.open_time,
        row.close,
        row.close_time,
    )
