"""Makes the rows that are due, and has them written, oldest first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import structlog
import trio

from marketflow.app.ports import Field, FieldBars, StoreAway, Window
from marketflow.app.share.beginning import Beginning
from marketflow.app.share.book import Book
from marketflow.app.share.earlier_boots import EarlierBoots
from marketflow.app.share.row_writing import REFUSED_ROWS, RowWriter
from marketflow.app.share.rows import Due
from marketflow.app.share.standing import ShareStanding
from marketflow.domain.periods import Span
from marketflow.domain.prices import FUTURE_TOLERANCE, Pair

log = structlog.get_logger()

ROWS: Final = 200
"""Rows in one write at most."""
ROWS_AT_A_TIME: Final = 40
"""Rows that are made without letting others have their turn: a few milliseconds' work."""
PROGRESS_SECONDS: Final = 1.0
"""How often (seconds) the progress of a long backfill is logged."""


class DueRows:
    """Rows of closed intervals that are not up to date.

    While Redis answers in time, the bars of a row are in Redis before the row is written. Otherwise, after a
    kill, the row would show that Redis lacks bars, and the next boot would have to answer from rows for the
    whole time before. With Redis away rows are still written, and on time.
    """

    def __init__(
        self,
        *,
        book: Book,
        beginning: Beginning,
        earlier: EarlierBoots,
        standing: ShareStanding,
        window: Window,
        writer: RowWriter,
    ) -> None:
        self._book = book
        self._beginning = beginning
        self._earlier = earlier
        self._standing = standing
        self._window = window
        self._writer = writer
        self._next_progress = -math.inf

    def pending(self, closed_to: int) -> int:
        """How many rows are not up to date, of intervals that ended at or before `closed_to` (ms)."""
        return self._book.rows.unwritten(closed_to)

    @property
    def refused(self) -> int:
        """Those of them that the store has refused."""
        return self._writer.refused

    @property
    def written(self) -> int:
        """Rows written by this boot."""
        return self._writer.written

    async def write(self, closed_to: int) -> None:
        """Write rows of intervals that ended at or before `closed_to` (ms).

        Raises:
            StoreAway: the database is away.
        """
        due, again = self._writer.begin_turn(self._due(closed_to), self._book.bars.unwritten)
        if due or again:
            await self._standing.flushed(bars=True)
        for first in range(0, len(due), ROWS):
            if self._writer.spent:
                return  # The rest is due in a second.
            await self._write(due[first : first + ROWS])
            self._tell_progress(min(first + ROWS, len(due)), len(due))
        for first in range(0, len(again), REFUSED_ROWS):
            if not await self._write(again[first : first + REFUSED_ROWS], again=True):
                break  # There may be thousands, and others are due in a second.

    def _due(self, closed_to: int) -> list[Due]:
        since = -math.inf
        if not self._earlier.history.known:
            # Earlier boots may have updates in intervals before, some of them ahead of the clock. Wait until
            # their bars are read and compared with the rows.
            began_at = self._beginning.at
            since = math.inf if began_at is None else began_at + FUTURE_TOLERANCE
        due = self._book.rows.take_due(closed_to, since=since)
        if due:
            self._beginning.fix()
        return due

    def _tell_progress(self, written: int, due: int) -> None:
        """Of a long way to go, such as after an outage, say now and then how much of it is done."""
        now = trio.current_time()
        if due > ROWS and (written == due or now >= self._next_progress):
            log.info("missing aggregates written", rows=written, of=due)
            self._next_progress = now + PROGRESS_SECONDS

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
            await self._standing.flushed(bars=True)
        return await self._writer.write(rows, again=again)

    async def _stored(self, batch: Sequence[Due]) -> dict[Pair, FieldBars]:
        """Earlier boots' bars of the intervals, as the window has them; none of them with the window away.

        Our own are in the book, which is never behind the window: reading a thousand minutes back would take
        a second of a core for nothing.
        """
        bars = self._book.bars
        fields: dict[Pair, list[Field]] = {}
        for due in batch:
            if due.end - bars.interval < bars.others.until:
                known = bars.fields(due.pair, Span(due.end - bars.interval, due.end))
                fields.setdefault(due.pair, []).extend(field for field in known if field[1] != bars.boot)
        if not any(fields.values()) or not self._standing.up:
            return {}
        try:
            return dict(await self._window.bars(fields))
        except StoreAway:
            return {}  # The flusher will notice, and say so.
