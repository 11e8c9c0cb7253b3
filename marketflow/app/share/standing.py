"""Fills the port of standing: how far the known bars of a share can be trusted."""

from __future__ import annotations

from functools import partial
from operator import attrgetter

import trio
from trio_util import wait_any

from marketflow.app.share.beginning import Beginning
from marketflow.app.share.book import Book
from marketflow.app.share.earlier_boots import EarlierBoots
from marketflow.app.share.history import History
from marketflow.app.share.history_reach import HistoryReach
from marketflow.app.share.sending import Sender
from marketflow.app.share.trials import Trials
from marketflow.app.share.wake import Wake


class ShareStanding:
    """Fills the port Standing, and tells the writer of rows whether the window has their bars."""

    def __init__(
        self,
        *,
        book: Book,
        beginning: Beginning,
        earlier: EarlierBoots,
        trials: Trials,
        sender: Sender,
        wake: Wake,
        flush_interval: float,
        patience: float,
    ) -> None:
        """Times in seconds.

        Args:
            wake: asks for a flush.
            flush_interval: how often the window acknowledges something while it is well.
            patience: how long a question waits for what is pending.
        """
        self._book = book
        self._beginning = beginning
        self._earlier = earlier
        self._trials = trials
        self._sender = sender
        self._wake = wake
        self._flush_interval = flush_interval
        self._patience = patience

    @property
    def began_at(self) -> int | None:
        """When the book began to accept updates (Unix ms)."""
        return self._beginning.at

    @property
    def up(self) -> bool:
        """Whether questions can be answered from the window."""
        return self._trials.link.up

    @property
    def history_known(self) -> bool:
        """Whether the bars of earlier boots, of the last hour, are known."""
        return self._earlier.history.known

    @property
    def known_from(self) -> int:
        """From when on (ms) the bars of earlier boots are known; 0: all of the last hour."""
        return self._reach(self._earlier.history).known_from

    async def wait_for_history(self, since: int) -> None:
        """While bars of other boots, from `since` (ms) on, are being read or compared, wait.

        That is just after the start, and just after the lease of the database was taken again. The wait is
        no longer than the patience.
        """

        def complete(history: History) -> bool:
            return self._reach(history).complete_from <= since

        if complete(self._earlier.history):
            await trio.lowlevel.checkpoint()
            return
        with trio.move_on_after(self._patience):
            await wait_any(partial(self._earlier.wait_until, complete), self._all_that_can_be_read)

    async def _all_that_can_be_read(self) -> None:
        """Wait until all is read and compared that can be: nothing, if Redis does not answer."""
        await self._trials.first()
        up_to_date = partial(self._earlier.wait_until, attrgetter("up_to_date"))
        await wait_any(up_to_date, self._trials.silent)
        if self._earlier.history.read:
            # Rows cannot tell anything before Redis is back if the history is unsure.
            await self._earlier.wait_until(lambda history: not history.doubted or history.unsure)

    def _reach(self, history: History) -> HistoryReach:
        return HistoryReach(history, self._beginning.at, self._book.bars.interval)

    async def can_answer_from_redis(self) -> bool:
        """Whether questions can be answered from the window: it acknowledged a write a flush interval ago.

        If that was longer ago it waits for the next, one for all who ask, no longer than the patience.
        """
        if self._trials.link.tried and not self._unheard:
            return self.up
        with trio.move_on_after(self._patience):
            await self._trials.first()
            if self._unheard:
                self._wake.ask()
                await self._sender.heard()
            return self.up
        return False

    @property
    def _unheard(self) -> bool:
        """Whether a window that is up may have gone since it acknowledged a write."""
        return self.up and trio.current_time() - self._sender.acknowledged_at > self._flush_interval

    async def flushed(self, *, bars: bool = False) -> bool:
        """Wait until all updates that were accepted before are in the window, and say whether that is so.

        With `bars` until their bars are in the window as well. There may be many more of these, when the
        window has come back, or at the start.

        False when the window is away, not whole, or slower than the patience.
        """
        flushes = self._book.flushes
        position = flushes.position()
        with trio.move_on_after(self._patience):
            await self._trials.first()
            while self.up and not (
                flushes.settled(position) and (not bars or flushes.bars_settled(position))
            ):
                self._wake.ask()
                await self._book.buffers.wait_changed()
            return self.up
        return False
