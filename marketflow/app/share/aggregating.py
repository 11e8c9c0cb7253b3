"""Closed minutes become rows; what could not be written waits and is written oldest first."""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from typing import Final

import trio
from trio_util import wait_any

from marketflow.app.ports import StoreAway
from marketflow.app.share.closing import Closing
from marketflow.app.share.comparing import Comparison
from marketflow.app.share.database_lease import DatabaseLease
from marketflow.app.share.due_rows import DueRows
from marketflow.app.share.earlier_boots import EarlierBoots
from marketflow.app.share.retention import Retention

_SPARE_SECONDS: Final = 0.25
"""So long before a stop would be cut short the writing of rows ends."""


class Aggregator:
    """Keeps the rows true: each closed interval whose bars have changed is written, once a second at most.

    A row that the store refuses holds up no other. It stays pending and is tried again now and then.
    """

    def __init__(
        self,
        *,
        lease: DatabaseLease,
        earlier: EarlierBoots,
        closing: Closing,
        rows: DueRows,
        comparison: Comparison,
        retention: Retention,
        flusher_ended: trio.Event,
    ) -> None:
        """`flusher_ended`: set when the flusher has written its last."""
        self._lease = lease
        self._earlier = earlier
        self._closing = closing
        self._rows = rows
        self._comparison = comparison
        self._retention = retention
        self._ended = flusher_ended

    def close_all(self) -> None:
        """Nobody accepts updates any more: rows of open intervals are due, too."""
        self._closing.close_all()

    @property
    def pending(self) -> int:
        """Rows of closed intervals that are not up to date. None while all is well, but for a moment."""
        return self._rows.pending(self._closing.closed_to)

    @property
    def refused(self) -> int:
        """Those of them that the store has refused."""
        return self._rows.refused

    @property
    def written(self) -> int:
        """Rows written by this boot."""
        return self._rows.written

    async def run(self) -> None:
        """Write what is due, each second, until the flusher has ended; then a last time.

        A stop is not held up by a store that hangs: the next start writes what is due.

        Raises:
            StoreTaken: another service holds the database, and we have waited long enough for it to end.
        """
        with trio.CancelScope() as writing:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_before_the_stop, writing)
                await self._write_each_second()
        if writing.cancelled_caught:
            self._lease.failed(StoreAway("it did not answer before the stop had to end"))

    async def _write_each_second(self) -> None:
        ended, last = self._ended, False
        while not last:
            with trio.move_on_after(self._closing.until_next_second):
                if self._earlier.history.doubted:
                    read = partial(self._earlier.wait_until, attrgetter("up_to_date"))
                    await wait_any(ended.wait, read)
                else:
                    await ended.wait()
            # Looked at before the write: what comes in while rows are written is due after it.
            last = ended.is_set()
            if self._lease.state.up or not last:
                await self.write_due()

    async def _end_before_the_stop(self, writing: trio.CancelScope) -> None:
        """Let the writing end by itself, a moment before the stop would be cut short."""
        await self._ended.wait()
        end = trio.current_effective_deadline()
        writing.deadline = end - min(_SPARE_SECONDS, max(0.0, end - trio.current_time()) / 4)

    async def write_due(self) -> None:
        """Write the rows of closed intervals that are not up to date, oldest first.

        Raises:
            StoreTaken: as `run`.
        """
        try:
            await self._lease.ensure()
        except StoreAway:
            return
        try:
            await self._rows.write(self._closing.closed_to)
            await self._comparison.run(self._lease.number)
            # Not before: one that lets us in and takes no row, with its disk full, or gives none, is away.
            self._lease.state.answered()
            await self._retention.clear(self._lease.number)
        except StoreAway as error:
            self._lease.failed(error)
