"""From the book to the window: the only writer, one write after another.

What is written when is decided here. How it is sent is in `sending`, how the window is restored in
`joining`, what is removed in `trimming`. `link` and `history` are the states that all of them share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import structlog
import trio
from trio_util import AsyncValue

from marketflow.app.ports import StoreAway, StoreTaken, Window
from marketflow.app.share.book import Book
from marketflow.app.share.history import History
from marketflow.app.share.joining import Joining
from marketflow.app.share.lease import LOOK_SECONDS, HeldByAnother, Lease, LeaseState
from marketflow.app.share.link import Task
from marketflow.app.share.sending import Sender
from marketflow.app.share.trials import Trials
from marketflow.app.share.trimming import Ages, Trimming
from marketflow.app.watch.clocks import AFTER_FEEDS, CautiousClock, DataClock, next_beat
from marketflow.app.watch.histogram import Histogram
from marketflow.app.watch.stores import StoreState
from marketflow.domain.prices import Pair

log = structlog.get_logger()

PROBE_SECONDS: Final = 0.25
"""How often a window that is away is tried."""
HEARTBEAT_SECONDS: Final = 0.5
"""How often at least an idle window is written to: the marker tells whether it was emptied."""
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
        window: Window,
        state: StoreState,
        clock: CautiousClock,
        data_clock: DataClock,
        pairs: Sequence[Pair],
        flush_interval: float,
        window_length: int,
        patience: float,
        granted: Callable[[], bool] = lambda: False,
    ) -> None:
        """Intervals in seconds, the window's length in ms.

        Args:
            clock: tells which updates are too old to be written.
            data_clock: tells what is old enough to be removed.
            pairs: every exchange and symbol of both modes.
            patience: how long (seconds) a question waits for what is pending.
            granted: whether the database has given this boot its lock.
        """
        self.history = AsyncValue(History())
        """What is known of the bars of earlier boots."""
        self.ended = trio.Event()
        """Set when it has written its last."""
        self._book = book
        self._window = window
        self._clock = clock
        self._flush_interval = flush_interval
        self._patience = patience
        self._configured = dict.fromkeys(pairs)
        self._asked = trio.Event()
        """Set when somebody wants the next flush now; a new one for each flush."""
        self._lease = Lease(window, boot=book.boot, granted=granted)
        self._trials = Trials(state, book.buffers.set_dropping)
        self._sender = Sender(window, self._lease, self._trials)
        ages = Ages(book, clock=clock, data_clock=data_clock, window_length=window_length)
        self._trimming = Trimming(
            ages, window=window, sender=self._sender, trials=self._trials, pairs=lambda: self.pairs
        )
        self._joining = Joining(
            book=book,
            window=window,
            sender=self._sender,
            trials=self._trials,
            trimming=self._trimming,
            history=self.history,
            pairs=lambda: self.pairs,
        )

    @property
    def pairs(self) -> Sequence[Pair]:
        """The configured ones, and others that the book has bars of.

        Earlier boots had other symbols and exchanges, and may have left rows that are due. Their bars are
        kept and removed like all others.
        """
        others = [pair for pair in self._book.bars.pairs if pair not in self._configured]
        return [*self._configured, *others]

    @property
    def up(self) -> bool:
        """Whether questions can be answered from the window."""
        return self._trials.link.up

    @property
    def history_known(self) -> bool:
        """Whether the bars of earlier boots, of the last hour, are known."""
        history: History = self.history.value  # trio-util has no types
        return history.known

    @property
    def write_seconds(self) -> Histogram:
        """How long each write took that the window has acknowledged."""
        return self._sender.write_seconds

    def doubt_history(self, *, doubted: bool) -> None:
        """Say whether rows have yet to tell if the bars of earlier boots are all."""
        self.history.value = self.history.value.doubt(doubted=doubted)

    def read_history(self) -> None:
        """Have the bars of other boots read (again), also if they are being read just now."""
        self.history.value = self.history.value.read_again()
        self._trials.become(self._trials.link.outdated())
        self._asked.set()

    async def wait_for_history(self) -> None:
        """Just started, wait until the history of earlier boots is known, no longer than the patience."""
        with trio.move_on_after(self._patience):
            await self._trials.first()
            if self.history.value.read:
                await self.history.wait_value(lambda history: not history.doubted)

    async def wait_until_history_read(self) -> None:
        """Wait until the bars of earlier boots have been read; rows may have yet to tell if these are all."""
        await self.history.wait_value(lambda history: history.read)

    async def can_answer_from_redis(self) -> bool:
        """Whether questions can be answered from the window: it acknowledged a write a flush interval ago.

        If that was longer ago it waits for the next, one for all who ask, no longer than the patience.
        """
        if self._trials.link.tried and not self._unheard:
            return self.up
        with trio.move_on_after(self._patience):
            await self._trials.first()
            if self._unheard:
                self._asked.set()
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
        position = self._book.flushes.position()
        with trio.move_on_after(self._patience):
            await self._trials.first()
            while self.up and not (
                self._book.flushes.settled(position)
                and (not bars or self._book.flushes.bars_settled(position))
            ):
                self._asked.set()
                await self._book.buffers.wait_changed()
            return self.up
        return False

    @property
    def leased_until(self) -> float:
        """When the window was held for sure the last time (Trio's clock); -inf if it never was."""
        return self._lease.renewed

    @property
    def another(self) -> bool:
        """Whether another boot has the window for sure."""
        return self._lease.another

    async def take_lease(self, deadline: float) -> None:
        """At the start: take the lease of the window.

        It waits for another boot to end, until `deadline` (seconds of Trio's clock).

        Without Redis the service starts all the same; the lease is then taken once it answers. But not
        if another boot was seen before Redis went away: both would serve until a store is back.

        Raises:
            StoreTaken: the other has not ended.
        """
        self._lease.wait_until(deadline)
        seen: StoreAway | None = None
        while self._lease.state is not LeaseState.HELD:
            try:
                await self._lease.ensure()
            except StoreAway as error:
                if isinstance(error, HeldByAnother):
                    self._trials.state.failed(error)
                    seen = error
                if seen is None:
                    return
                if trio.current_time() >= deadline:
                    raise StoreTaken(str(seen)) from None
                await trio.sleep(LOOK_SECONDS)

    async def run(self) -> None:
        """Flush until the book has ended and is drained.

        Raises:
            StoreTaken: another boot holds the window.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._ask_at_the_end)
                await self._run()
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
                log.warning("Redis stays held until that expires", error=str(error))

    async def _ask_at_the_end(self) -> None:
        await self._book.ended.wait()
        self._asked.set()

    async def _run(self) -> None:
        tries = 0
        while True:
            ending = self._book.ended.is_set()
            self._asked = trio.Event()
            if ending:
                self._asked.set()
            began = trio.current_time()
            await self._flush()
            self._trials.become(self._trials.link.tried_once())
            self._sender.tell_waiting()
            if ending:
                tries += 1
                if self._book.flushes.drained and (
                    self.up or (self._trials.link.answers and tries > LAST_TRIES)
                ):
                    return
                if tries >= LAST_TRIES and not self._trials.link.answers:
                    self._book.flushes.drop_pending()
                    return
            await self._pause(began)

    async def _pause(self, began: float) -> None:
        if self._trials.link.answers:
            # Twice in an interval: with the time of a write, an update is in the window within it.
            # And no later than the heartbeat, even if the interval is longer: the lease would expire.
            beat = min(self._flush_interval / 2, HEARTBEAT_SECONDS)
            with trio.move_on_at(next_beat(began - AFTER_FEEDS, beat) + AFTER_FEEDS):
                await self._asked.wait()
        else:
            # However many ask, a window that is away is not tried more often.
            await trio.sleep(PROBE_SECONDS)

    async def _flush(self) -> None:
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

    async def _write_pending(self, now: int) -> None:
        # Up to what was accepted by now: more may come in for ever, and there is other work.
        flushes, sender = self._book.flushes, self._sender
        position, settled = flushes.position(), False
        while not settled and (flush := flushes.next(self._window, now)) is not None:
            alone = sender.idle and not flushes.waiting
            send = sender.write if alone else sender.post
            await send(flush.encoded, flushes.acknowledge)
            settled = flushes.settled(position)
            await self._trimming.trim()
        if sender.asked or trio.current_time() - sender.acknowledged_at >= HEARTBEAT_SECONDS:
            await sender.mark()
