"""One round of the flusher: remove what is too old, restore the window, write what is pending."""

from __future__ import annotations

from typing import Final

import structlog
import trio

from marketflow.app.instruments.histogram import Histogram
from marketflow.app.ports import Clock, StoreAway, Window
from marketflow.app.share.book import Book
from marketflow.app.share.joining import Joining
from marketflow.app.share.link import Task
from marketflow.app.share.sending import Sender
from marketflow.app.share.trials import Trials
from marketflow.app.share.trimming import Trimming

log = structlog.get_logger()

HEARTBEAT_SECONDS: Final = 0.5
"""How often at least an idle window is written to: the marker tells whether it was emptied."""


class Rounds:
    """What is written in a round, and in which order.

    How it is sent is in `sending`, how the window is restored in `joining`, what is removed in `trimming`.
    """

    def __init__(
        self,
        *,
        book: Book,
        window: Window,
        clock: Clock,
        sender: Sender,
        trials: Trials,
        trimming: Trimming,
        joining: Joining,
    ) -> None:
        """`clock` tells which updates are too old to be written."""
        self._book = book
        self._window = window
        self._clock = clock
        self._sender = sender
        self._trials = trials
        self._trimming = trimming
        self._joining = joining

    @property
    def write_seconds(self) -> Histogram:
        """How long each write took that the window has acknowledged."""
        return self._sender.write_seconds

    @property
    def due_at(self) -> float:
        """When there is something to do even if no update enters (seconds of Trio's clock)."""
        return min(self._heartbeat_at, self._trimming.due_at)

    @property
    def _heartbeat_at(self) -> float:
        return self._sender.acknowledged_at + HEARTBEAT_SECONDS

    async def run(self) -> float:
        """Run one round. If the window fails, the next round does the rest.

        Returns how many updates it has written for each bar, on average.

        Raises:
            StoreTaken: another boot holds the window.
        """
        now, joined, density = self._clock.now(), None, 0.0
        try:
            # First, since a Redis that is full takes nothing until it has been trimmed.
            await self._trimming.trim()
            if not self._trials.link.whole:
                joined = await self._joining.join()
            with self._trials.of(Task.WRITE):
                density = await self._write_pending(now)
                await self._sender.collect()
            await self._trimming.try_again()
        except StoreAway:
            self._sender.give_up()
            self._trimming.while_away()
        else:
            if joined is not None and self._trials.link.whole:
                log.info("window whole", **joined)
        self._trials.become(self._trials.link.tried_once())
        self._sender.tell_waiting()
        return density

    async def _write_pending(self, now: int) -> float:
        # Up to what was accepted by now: more may come in for ever, and there is other work.
        flushes, sender = self._book.flushes, self._sender
        position, settled = flushes.position(), False
        updates = bars = 0
        while not settled and (flush := flushes.next(self._window, now)) is not None:
            alone = sender.idle and not flushes.waiting
            send = sender.write if alone else sender.post
            updates += sum(flush.counts.values())
            bars += len(flush.bars)
            await send(flush.encoded, flushes.acknowledge)
            settled = flushes.settled(position)
            if not settled:
                await self._trimming.trim()
        # The last round looks, too: later nobody can write again what the window has lost.
        last = self._book.ended.is_set()
        if last or sender.asked or trio.current_time() >= self._heartbeat_at:
            await sender.mark()
        return updates / bars if bars else 0.0
