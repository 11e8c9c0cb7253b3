"""From the book to the window: the only writer, one round after another.

When a round is due is decided here, what it writes in `rounds`. `link` and `history` are the states that all
parts of the writer share.
"""

from __future__ import annotations

from typing import Final

import structlog
import trio

from marketflow.app.instruments.clocks import AFTER_FEEDS, next_beat
from marketflow.app.instruments.histogram import Histogram
from marketflow.app.ports import StoreAway
from marketflow.app.share.book import Book
from marketflow.app.share.lease import WriterLease
from marketflow.app.share.rounds import HEARTBEAT_SECONDS, Rounds
from marketflow.app.share.trials import Trials
from marketflow.app.share.wake import Wake

log = structlog.get_logger()

PROBE_SECONDS: Final = 0.25
"""How often a window that is away is tried."""
DENSE: Final = 120
"""Updates for each bar of a round. From so many on a round costs mostly what its updates cost, so that two
rounds with half of them cost little more than one."""
LAST_TRIES: Final = 2
"""How often the last flush is tried at a stop."""
RELEASE_SECONDS: Final = 1.0
"""How long (seconds) it may take to give the lease back."""


class Flusher:
    """The only writer to the window.

    It ends when the book has ended and everything was written, or could not be written at `LAST_TRIES` tries:
    updates are then counted as dropped; their bars remain in the book.
    """

    def __init__(
        self,
        *,
        book: Book,
        rounds: Rounds,
        trials: Trials,
        wake: Wake,
        lease: WriterLease,
        flush_interval: float,
    ) -> None:
        """`flush_interval` in seconds."""
        self.ended = trio.Event()
        """Set when it has written its last."""
        self._book = book
        self._rounds = rounds
        self._trials = trials
        self._wake = wake
        self._lease = lease
        self._flush_interval = flush_interval

    @property
    def up(self) -> bool:
        """Whether questions can be answered from the window."""
        return self._trials.link.up

    @property
    def write_seconds(self) -> Histogram:
        """How long each write took that the window has acknowledged."""
        return self._rounds.write_seconds

    async def run(self) -> None:
        """Flush until the book has ended and is drained; then give the lease back.

        Raises:
            StoreTaken: another boot holds the window.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._ask_at_the_end)
                nursery.start_soon(self._wake.run)
                await self._run()
                nursery.cancel_scope.cancel()
            await self._release()
        finally:
            self.ended.set()

    async def _release(self) -> None:
        if not self._trials.link.answers:
            return  # It expires.
        with trio.move_on_after(RELEASE_SECONDS):
            try:
                await self._lease.release()
            except StoreAway as error:
                log.warning("lease on Redis not released", error=str(error))

    async def _ask_at_the_end(self) -> None:
        await self._book.ended.wait()
        self._wake.ask()

    async def _run(self) -> None:
        tries, dense = 0, False
        while True:
            ending = self._book.ended.is_set()
            self._wake.begin()
            if ending:
                self._wake.ask()
            began = trio.current_time()
            # While rounds are dense they come twice as often, and so have half as much to write.
            dense = await self._rounds.run() > (DENSE / 2 if dense else DENSE)
            if ending:
                tries += 1
                if self._book.flushes.drained and (
                    self.up or (self._trials.link.answers and tries > LAST_TRIES)
                ):
                    return
                if tries >= LAST_TRIES and not self._trials.link.answers:
                    self._book.flushes.drop_pending()
                    return
            await self._pause(began, dense=dense)

    async def _pause(self, began: float, *, dense: bool) -> None:
        """Wait for the next round. The last one `began` at that time (of Trio's clock)."""
        if not self._trials.link.answers:
            # However many ask, a window that is away is not tried more often.
            await trio.sleep(PROBE_SECONDS)
            return
        if self._trials.link.whole and not self._book.flushes.waiting:
            await self._wake.wait_for_work(self._rounds.due_at)
        # One round in half an interval: with the time of a write, an update is in the window within it. While
        # much comes in, two rounds: the feeds read twice as often then.
        # And no later than the heartbeat, even if the interval is longer: the lease would expire.
        interval = self._flush_interval / (4 if dense else 2)
        beat = next_beat(began, min(interval, HEARTBEAT_SECONDS))
        if trio.current_time() < beat:
            # Not at the beat itself, or what the feeds read at it would have to wait for the next one.
            with trio.move_on_at(beat + AFTER_FEEDS):
                await self._wake.wait_asked()
