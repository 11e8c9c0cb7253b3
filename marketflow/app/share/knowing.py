"""Fills the ports of questions and the live stream from the parts of a share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import trio

from marketflow.app.share.book import Book
from marketflow.app.share.earlier_boots import EarlierBoots
from marketflow.app.share.sending import Sender
from marketflow.app.share.trials import Trials
from marketflow.app.share.wake import Wake
from marketflow.domain.bars import Bar
from marketflow.domain.periods import SECOND, Span
from marketflow.domain.prices import FUTURE_TOLERANCE, Pair

AHEAD: Final = FUTURE_TOLERANCE / SECOND
"""Seconds that an accepted timestamp may be ahead of our clock."""


class BookBars:
    """Fills the port KnownBars. The book has every bar of its exchanges: it is their only writer."""

    def __init__(self, book: Book, *, window_length: int) -> None:
        """`window_length` is how long (ms) the window keeps an update."""
        self._book = book
        self._bars = book.bars
        self._rows = book.rows
        self._window_length = window_length / SECOND
        self._drops: dict[str, tuple[int, float]] = {}
        """By exchange how many updates it had dropped, and when that was first seen (Trio's clock)."""

    @property
    def forgotten_to(self) -> int:
        """Bars before this time (ms) have been forgotten, or Redis had lost some of them."""
        return max(self._bars.pruned_to, self._rows.adopted.reach)

    @property
    def next_sequence(self) -> int:
        """Greater than the sequences of all updates that have entered."""
        return self._book.sequences.next

    async def catch_up(self, pairs: Sequence[Pair]) -> None:
        """No-op: updates enter the book as they are accepted."""

    async def wait_for_updates(self, since: int) -> int:
        """Wait until updates from the sequence `since` on have entered; returns the next sequence."""
        return await self._book.sequences.wait_beyond(since)

    def newest(self, pair: Pair) -> Bar | None:
        """The bar with the newest update."""
        return self._bars.newest_bars.of(pair)

    def bar(self, pair: Pair, span: Span) -> Bar | None:
        """The updates of the seconds that start within the span."""
        return self._bars.bar(pair, span)

    def seconds(self, pair: Pair, span: Span) -> list[tuple[int, Bar]]:
        """The bars of the seconds that start within the span, one for each boot."""
        return [(second, bar) for (second, _), bar in self._bars.fields(pair, span).items()]

    def minutes(self, pair: Pair, span: Span) -> list[tuple[int, Bar]]:
        """The same updates, with whole minutes merged."""
        return self._bars.parts(pair, span)

    def unwritten(self, pair: Pair, span: Span) -> dict[int, Bar]:
        """By their start (ms) the bars of intervals whose rows are not up to date."""
        return self._rows.unwritten_between(pair, span)

    def may_lack(self, exchange: str) -> bool:
        """Whether an update that the window would still hold may have been dropped."""
        now, dropped = trio.current_time(), self._book.ledgers[exchange].dropped.total()
        before, seen_at = self._drops.get(exchange, (0, -math.inf))
        if dropped != before:
            seen_at = now
            self._drops[exchange] = dropped, seen_at
        return now - seen_at <= self._window_length + AHEAD


class ShareStanding:
    """Fills the port Standing, and tells the writer of rows whether the window has their bars."""

    def __init__(
        self,
        *,
        book: Book,
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
        self._earlier = earlier
        self._trials = trials
        self._sender = sender
        self._wake = wake
        self._flush_interval = flush_interval
        self._patience = patience

    @property
    def began_at(self) -> int | None:
        """When the book began to accept updates (Unix ms)."""
        return self._book.began_at

    @property
    def up(self) -> bool:
        """Whether questions can be answered from the window."""
        return self._trials.link.up

    @property
    def history_known(self) -> bool:
        """Whether the bars of earlier boots, of the last hour, are known."""
        return self._earlier.history.known

    async def wait_for_history(self) -> None:
        """While the bars of other boots are being read or compared, wait, no longer than the patience.

        That is just after the start, and just after the lease of the database was taken again.
        """
        with trio.move_on_after(self._patience):
            await self._trials.first()
            if self._earlier.reading:
                await self._earlier.read()
            if self._earlier.history.read:
                await self._earlier.undoubted()

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
