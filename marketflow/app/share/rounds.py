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

DENSE: Final = 120
"""Updates for each bar of a round. From so many on a round costs mostly what its updates cost, so that two
rounds with half of them cost little more than one."""


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
        self.dense = False
        """Whether the last round wrote many updates for each bar."""

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

    async def run(self) -> None:
        """Run one round. If the window fails, the next round does the rest.

        Raises:
            StoreTaken: another boot holds the window.
        """
        now, joined = self._clock.now(), None
        try:
            # First, since a Redis that is full takes nothing until it has been trimmed.
            await self._trimming.trim()
            if not self._trials.link.whole:
                joined = await self._joining.join()
            with self._trials.of(Task.WRITE):
                await self._write_pending(now)
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

    async def _write_pending(self, now: int) -> None:
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
        # Rounds come twice as often while they are dense, and so have half as much to write.
        self.dense = updates > bars * (DENSE / 2 if self.dense else DENSE)
        # The last round looks, too: later nobody can write again what the window has lost.
        last = self._book.ended.is_set()
        if last or sender.asked or trio.current_time() >= self._heartbeat_at:
            await sender.mark()
