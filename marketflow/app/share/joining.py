"""Restores the window after an outage, after Redis was emptied, and at the start, always in the same way."""

from __future__ import annotations

import trio

from marketflow.app.share.book import Book
from marketflow.app.share.earlier_boots import EarlierBoots
from marketflow.app.share.link import Task
from marketflow.app.share.reading import Reading, Stored
from marketflow.app.share.sending import Sender
from marketflow.app.share.trials import Trials
from marketflow.app.share.trimming import Trimming


class Joining:
    """Writes to the window what it lacks, and adopts the bars of earlier boots that the book lacks."""

    def __init__(
        self,
        *,
        book: Book,
        sender: Sender,
        trials: Trials,
        trimming: Trimming,
        earlier: EarlierBoots,
        reading: Reading,
    ) -> None:
        self._book = book
        self._sender = sender
        self._trials = trials
        self._trimming = trimming
        self._earlier = earlier
        self._reading = reading

    async def join(self) -> dict[str, int]:
        """Make the window whole; returns what that took.

        A write of the marker tells whether the window was emptied. Then come the flushes that were on their
        way, then bars: the book adopts what it lacks, and what the window lacks goes with the next flushes.
        If the window was emptied, the updates of the last minute follow. If it was emptied again meanwhile,
        or the history is to be read again, the link does not become whole, and all is done again.

        Raises:
            StoreAway
        """
        number = self._earlier.history.wanted
        with self._trials.of(Task.MARK):
            await self._sender.mark()
        with self._trials.of(Task.WRITE):
            for on_its_way in list(self._book.flushes.in_flight):
                await self._sender.write(on_its_way.encoded, self._book.flushes.acknowledge)
        epoch = self._trials.link.epoch
        with self._trials.of(Task.READ):
            stored = await self._reading.read(number)
        missing = await self._adopt(stored)
        self._earlier.was_read(number)
        flushes = self._book.flushes.replay.flushes() if self._trials.link.replay_due else ()
        with self._trials.of(Task.REPLAY):
            for flush in flushes:
                await self._sender.write(flush)
        self._trials.become(self._trials.link.replayed_all(epoch))
        if self._earlier.history.wanted == number:
            self._trials.become(self._trials.link.made_whole(epoch))
        return {"bars_written": missing, "flushes_replayed": len(flushes)}

    async def _adopt(self, stored: Stored) -> int:
        """Adopt the bars that the window has; returns how many it lacks."""
        self._trimming.prune()
        missing = 0
        for pair, bars in stored.items():
            self._book.bars.adopt_minutes(pair, bars.values())
            # By whole intervals, as everywhere: half of one would be less than its row.
            self._trimming.found(pair, bars, self._book.bars.pruned_to)
            missing += self._book.bars.mark_missing(pair, bars)
            await trio.lowlevel.checkpoint()  # An hour of many symbols must not hold up everybody else.
        self._book.follow_others()
        return missing
