"""Closed minutes become rows; what could not be written waits and is written oldest first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import structlog
import trio
from trio_util import wait_any

from marketflow.app.ports import (
    AggregateStore,
    Clock,
    Field,
    FieldBars,
    RowsRefused,
    StoreAway,
    StoreTaken,
    Window,
)
from marketflow.app.share.book import Book
from marketflow.app.share.comparing import Comparison
from marketflow.app.share.flushing import Flusher
from marketflow.app.share.row_writing import REFUSED_ROWS, RowWriter
from marketflow.app.share.rows import Due
from marketflow.app.watch.clocks import DataClock
from marketflow.app.watch.stores import StoreState
from marketflow.domain.periods import MINUTE, SECOND, Span
from marketflow.domain.prices import Pair

log = structlog.get_logger()

ROWS: Final = 200
"""Rows in one write at most."""
ROWS_AT_A_TIME: Final = 40
"""Rows that are made without letting others have their turn: a few milliseconds' work."""
LOCK_PATIENCE: Final = 10.0
"""How long (seconds) to wait for the lock on the stores that another service holds."""
LOST_PATIENCE: Final = 1.0
"""How long (seconds) to wait for the lock that we have held, and another service has now."""
PROGRESS_SECONDS: Final = 1.0
"""How often (seconds) the progress of a long backfill is logged."""
LOCK_PROBE: Final = 0.25
"""How often (seconds) the lock is tried meanwhile."""
CLEARING_PAUSE: Final = MINUTE
"""How far (ms) the data clock moves between two searches for rows past their retention."""


class Aggregator:
    """Keeps the rows true: each closed interval whose bars have changed is written, once a second at most.

    A row that the store refuses holds up no other. It stays pending and is tried again now and then.

    While Redis answers in time, the bars of a row are in Redis before the row is written. Otherwise, after a
    kill, the row would show that Redis lacks bars, and the next boot would have to answer from rows for the
    whole time before. With Redis away rows are written all the same, and on time.
    """

    def __init__(
        self,
        *,
        book: Book,
        flusher: Flusher,
        window: Window,
        store: AggregateStore,
        state: StoreState,
        clock: Clock,
        data_clock: DataClock,
        grace: int,
        retention: int | None,
    ) -> None:
        """Times in ms.

        Args:
            clock: tells which intervals are closed.
            data_clock: tells which rows are past their retention.
            grace: how long after its end an interval is closed.
            retention: how long rows are kept; None for ever.
        """
        self._book = book
        self._flusher = flusher
        self._window = window
        self._store = store
        self._state = state
        self._clock = clock
        self._data_clock = data_clock
        self._grace = grace
        self._retention = retention
        self._lease = 0
        self._comparison = Comparison(
            book=book,
            flusher=flusher,
            store=store,
            clock=clock,
            data_clock=data_clock,
            grace=grace,
            retention=retention,
        )
        self._leased = False
        self.leased_until = -math.inf
        """When the lock was ours the last time (Trio's clock); -inf if it never was."""
        self._taken_since: float | None = None
        self._cleared_at = -math.inf
        """When rows past their retention were last deleted (ms of the data clock)."""
        self._stored_seen = 0
        """The lease under which the newest rows were looked at: the data clock must know of them."""
        self._next_progress = -math.inf
        self._rows = RowWriter(store=store, state=state, due=book.rows)

    @property
    def pending(self) -> int:
        """Rows of closed intervals that are not up to date. None while all is well, but for a moment."""
        return self._book.rows.unwritten(self._clock.now() - self._grace)

    @property
    def has_lease(self) -> bool:
        """Whether the lock on the stores was ours when last asked for."""
        return self._leased

    @property
    def another(self) -> bool:
        """Whether another service had the lock when we asked for it last."""
        return self._taken_since is not None

    @property
    def refused(self) -> int:
        """Those of them that the store has refused."""
        return self._rows.refused

    @property
    def written(self) -> int:
        """Rows written by this boot."""
        return self._rows.written

    async def take_lease(self) -> None:
        """At the start: take the lock on the stores, waiting for another service to end.

        Without PostgreSQL the service starts all the same; the lock is then taken once it answers. But not
        if another service was seen before PostgreSQL went away: both would serve until a store is back.

        Raises:
            StoreTaken: the other has not ended in 10 s.
        """
        with trio.move_on_after(LOCK_PATIENCE):
            while not await self._keep_lease():
                if self._state.error is not None and self._taken_since is None:
                    return
                await trio.sleep(LOCK_PROBE)
            self._state.answered()
            return
        raise StoreTaken

    async def run(self) -> None:
        """Write what is due, each second, until the flusher has ended; then a last time."""
        ended, last = self._flusher.ended, False
        while not last:
            with trio.move_on_after(self._until_next_second()):
                # While another service holds the stores nothing can be compared: once a second is enough.
                if self._flusher.history.value.doubted and self._taken_since is None:
                    await wait_any(ended.wait, self._flusher.wait_until_history_read)
                else:
                    await ended.wait()
            # Looked at before the write: what comes in while rows are written is due after it.
            last = ended.is_set()
            # A stop does not wait for a store that is away: the next start writes what is due.
            if self._state.up or not last:
                await self.write_due()

    def _until_next_second(self) -> float:
        # Computed from the wall clock each time, so that no close of a minute is missed or late.
        return (SECOND - (self._clock.now() - self._grace) % SECOND) / 1_000

    async def _keep_lease(self) -> bool:
        """Whether we have the lease of PostgreSQL just now."""
        self._leased = False
        try:
            lease = await self._store.lease()
        except StoreAway as error:
            self._failed(error)
            if self._lease:
                self._taken_since = None  # What was seen before an outage says nothing after it.
            return False
        except StoreTaken:
            # Who has held it and finds another there ends soon: two services count every update twice.
            patience = LOST_PATIENCE if self._lease else LOCK_PATIENCE
            if self._taken_since is None:
                log.warning("another marketflow holds the database, waiting", seconds=patience)
                self._taken_since = trio.current_time()
            if trio.current_time() - self._taken_since >= patience:
                raise
            return False
        self._taken_since, self._leased = None, True
        self.leased_until = trio.current_time()
        if lease != self._lease:
            # Until now another service may have added to what Redis holds.
            self._lease = lease
            self._flusher.read_history()
        self._flusher.doubt_history(doubted=not self._comparison.done)
        return True

    async def write_due(self) -> None:
        """Write the rows of closed intervals that are not up to date, oldest first.

        Raises:
            StoreTaken: another service holds the stores, and we have waited long enough for it to end.
        """
        if not await self._keep_lease():
            return
        try:
            await self._write_all(self._due(self._clock.now()))
            await self._comparison.run(self._lease)
            # Not before: one that lets us in and takes no row, with its disk full, or gives none, is away.
            self._state.answered()
            await self._clear()
        except StoreAway as error:
            self._failed(error)

    async def _write_all(self, due: Sequence[Due]) -> None:
        due, again = self._rows.begin_turn(due)
        if due or again:
            await self._flusher.flushed(bars=True)
        for first in range(0, len(due), ROWS):
            if self._rows.spent:
                return  # The rest is due in a second.
            await self._write(due[first : first + ROWS])
            self._tell_progress(min(first + ROWS, len(due)), len(due))
        for first in range(0, len(again), REFUSED_ROWS):
            if not await self._write(again[first : first + REFUSED_ROWS], again=True):
                break  # There may be thousands, and others are due in a second.

    def _tell_progress(self, written: int, due: int) -> None:
        """Of a long way to go, such as after an outage, say now and then how much of it is done."""
        now = trio.current_time()
        if due > ROWS and (written == due or now >= self._next_progress):
            log.info("missing aggregates written", rows=written, of=due)
            self._next_progress = now + PROGRESS_SECONDS

    def _failed(self, error: StoreAway) -> None:
        self._state.failed(error)
        self._flusher.doubt_history(doubted=False)  # There is nobody else to believe.

    def _due(self, now: int) -> list[Due]:
        due = self._book.rows.due(now - self._grace)
        if not self._flusher.history.value.read:
            # Intervals that were open when this boot began need the bars of earlier boots.
            interval, began_at = self._book.bars.interval, self._book.began_at
            due = [row for row in due if began_at is not None and row.end - interval >= began_at]
        return due

    async def _write(self, batch: Sequence[Due], *, again: bool = False) -> bool:
        """Write the rows; returns whether the store has taken them all."""
        stored = await self._stored(batch)
        rows, changed = [], False
        for place, due in enumerate(batch):
            if place % ROWS_AT_A_TIME == 0:
                await trio.lowlevel.checkpoint()
            rows.append((due, self._book.rows.aggregate(due, stored.get(due.pair, {}))))
            changed = changed or not self._book.rows.is_current(due)
        if changed:
            # There are updates in these rows that came after all was flushed.
            await self._flusher.flushed(bars=True)
        return await self._rows.write(rows, again=again)

    async def _stored(self, batch: Sequence[Due]) -> dict[Pair, FieldBars]:
        """Earlier boots' bars of the intervals, as the window has them; none of them with the window away.

        Our own are in the book, which is never behind the window: reading a thousand minutes back would take
        a second of a core for nothing.
        """
        bars = self._book.bars
        fields: dict[Pair, list[Field]] = {}
        for due in batch:
            if due.end - bars.interval < bars.others_until:
                known = bars.fields(due.pair, Span(due.end - bars.interval, due.end))
                fields.setdefault(due.pair, []).extend(field for field in known if field[1] != bars.boot)
        if not any(fields.values()) or not self._flusher.up:
            return {}
        try:
            return dict(await self._window.bars(fields))
        except StoreAway:
            return {}  # The flusher will notice, and say so.

    async def _clear(self) -> None:
        if self._retention is None:
            return
        if self._stored_seen != self._lease:
            for pair, newest in (await self._store.newest(self._flusher.pairs)).items():
                self._data_clock.see(pair[0], newest.timestamp)
            self._stored_seen = self._lease
        now = self._data_clock.now()
        if abs(now - self._cleared_at) < CLEARING_PAUSE:
            return
        # Before the try: one that fails each second would have the store away and up in turn.
        self._cleared_at = now
        try:
            deleted = await self._store.delete_before(now - self._retention)
        except RowsRefused as error:
            log.warning("deletion of aggregates refused", error=str(error))
            return
        if deleted:
            log.info("aggregates past their retention deleted", rows=deleted)
            self._cleared_at = -math.inf  # There may be more.
