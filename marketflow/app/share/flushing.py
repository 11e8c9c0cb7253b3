"""From the book to the window: one write after another, and the window made whole when it was away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import structlog
import trio

from marketflow.app.ports import EncodedFlush, Flush, StoreAway, StoreRefuses, StoreTaken, Window
from marketflow.app.share.book import Book
from marketflow.app.share.lease import LOOK_SECONDS, HeldByAnother, Lease, LeaseState
from marketflow.app.share.second_bars import Key
from marketflow.app.share.trials import Task, Trials
from marketflow.app.watch.clocks import AFTER_FEEDS, CautiousClock, DataClock, next_beat
from marketflow.app.watch.histogram import Histogram
from marketflow.app.watch.stores import StoreState
from marketflow.domain.prices import Pair

log = structlog.get_logger()

PROBE_SECONDS: Final = 0.25
"""How often a window that is away is tried."""
HEARTBEAT_SECONDS: Final = 0.5
"""How often at least an idle window is written to: the marker tells whether it was emptied."""
TRIM_SECONDS: Final = 0.5
"""How often what is too old is removed."""
WINDOW_MARGIN: Final = 4_000
"""How much longer (ms) than its length the window is kept, so that no answer misses its oldest edge.

With the time between two trims it stays under the promised 5 s.
"""
LAST_TRIES: Final = 2
"""How often the last flush is tried at a stop."""
RELEASE_SECONDS: Final = 1.0
"""How long it may take to give the hold back."""


def _nothing() -> None:
    """Nobody is to be told."""


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
        self.whole = False
        """Whether the window holds all that it should."""
        self.history_read = trio.Event()
        """Set when the bars of earlier boots have been read, a new one when they are to be read again."""
        self._believed = trio.Event()
        """Set unless rows have yet to tell if they are all."""
        self._believed.set()
        self.ended = trio.Event()
        """Set when it has written its last."""
        self.write_seconds = Histogram()
        """How long each write took that the window has acknowledged."""
        self._tried = trio.Event()
        self._book = book
        self._window = window
        self._lease = Lease(window, boot=book.boot, granted=granted)
        self._state = state
        self._trials = Trials(state, partial(book.buffers.set_dropping, dropping=False))
        self._clock = clock
        self._data_clock = data_clock
        self._pairs = dict.fromkeys(pairs)
        self._flush_interval = flush_interval
        self._window_length = window_length
        self._patience = patience
        self._asked = trio.Event()
        self._doubted = False
        """Whether somebody wants to know if the window still answers."""
        self._heard = trio.Event()
        """Set when the window has acknowledged something, or has failed, and a new one then."""
        self._emptied = self._replayed = 0
        self._outdated: list[Key] = []
        self._made_whole: dict[str, int] | None = None
        """What making it whole took, until that is told."""
        self._last_write = self._last_trim = -1.0
        self._posted: list[tuple[float, Callable[[], None]]] = []
        """Of each flush on its way when it was sent (seconds of Trio's clock), and whom to tell."""

    @property
    def pairs(self) -> Sequence[Pair]:
        """The configured ones, and others that the book has bars of.

        Earlier boots had other symbols and exchanges, and may have left rows that are due. Their bars are
        kept and removed like all others.
        """
        others = [pair for pair in self._book.bars.pairs if pair not in self._pairs]
        return [*self._pairs, *others]

    @property
    def up(self) -> bool:
        """Whether questions can be answered from the window."""
        return self._state.up and self.whole

    @property
    def history_known(self) -> bool:
        """Whether it is known what earlier boots have accepted in the last hour."""
        return self.history_read.is_set() and self._believed.is_set()

    @property
    def history_doubted(self) -> bool:
        """Whether rows have yet to tell if what was read is all."""
        return not self._believed.is_set()

    def doubt_history(self, *, doubted: bool) -> None:
        """Say whether rows have yet to tell if what was, or will be, read is all."""
        if not doubted:
            self._believed.set()
        elif self._believed.is_set():
            self._believed = trio.Event()

    async def wait_for_history(self) -> None:
        """Just started, wait until it is known what is known; no longer than the patience."""
        with trio.move_on_after(self._patience):
            await self._tried.wait()
            if self.history_read.is_set():
                await self._believed.wait()

    def read_history(self) -> None:
        """Have the bars of other boots read (again), also if they are being read just now."""
        self.history_read = trio.Event()
        self.whole = False
        self._asked.set()

    async def can_answer_from_redis(self) -> bool:
        """Whether questions can be answered from the window: it acknowledged a write a flush interval ago.

        If that was longer ago it waits for the next, one for all who ask, no longer than the patience.
        """
        if self._tried.is_set() and not self._unheard:
            return self.up
        with trio.move_on_after(self._patience):
            await self._tried.wait()
            if self._unheard:
                self._doubted = True
                self._asked.set()
                await self._heard.wait()
            return self.up
        return False

    @property
    def _unheard(self) -> bool:
        """Whether a window that is up may have gone since it acknowledged a write."""
        return self.up and trio.current_time() - self._last_write > self._flush_interval

    async def flushed(self, *, bars: bool = False) -> bool:
        """Wait until all updates that were accepted before are in the window, and say whether that is so.

        With `bars` until their bars are in the window as well. There may be many more of these, when the
        window has come back, or at the start.

        False when the window is away, not whole, or slower than the patience.
        """
        position = self._book.flushes.position()
        with trio.move_on_after(self._patience):
            # Just started, it is not known yet whether the window is away.
            await self._tried.wait()
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
        """At the start: hold the window, waiting for another boot to end until `deadline` (Trio's clock).

        Without Redis the service starts all the same; the window is then held once it answers. But not
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
                    self._state.failed(error)
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
        if not self._state.up:
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
            self._tried.set()
            self._tell_waiting()
            if ending:
                tries += 1
                if self._book.flushes.drained and (self.up or (self._state.up and tries > LAST_TRIES)):
                    return
                if tries >= LAST_TRIES and not self._state.up:
                    self._book.flushes.drop_pending()
                    return
            await self._pause(began)

    async def _pause(self, began: float) -> None:
        if self._state.up:
            # Twice in an interval: with the time of a write, an update is in the window within it.
            # And no later than the heartbeat, whatever the interval: the hold would expire.
            beat = min(self._flush_interval / 2, HEARTBEAT_SECONDS)
            with trio.move_on_at(next_beat(began - AFTER_FEEDS, beat) + AFTER_FEEDS):
                await self._asked.wait()
        else:
            # However many ask, a window that is away is not tried more often.
            await trio.sleep(PROBE_SECONDS)

    async def _flush(self) -> None:
        now = self._clock.now()
        try:
            # First, since a Redis that is full takes nothing until it has been trimmed.
            await self._trim()
            if not self.whole:
                await self._make_whole()
            with self._trials.of(Task.WRITE):
                await self._write_pending(now)
                if self._posted:
                    self._acknowledged(intact=await self._window.collect())
            if Task.TRIM in self._trials.failed:
                await self._trim(due=True)  # Last, so that the rest had its turn.
            if self.whole and self._made_whole is not None:
                made, self._made_whole = self._made_whole, None
                log.info("window whole", **made)
        except StoreAway as error:
            self._state.failed(error)
            self._posted.clear()
            self.whole = False
            if isinstance(error, StoreRefuses) and Task.WRITE in self._trials.failed:
                self._emptied += 1  # A key of another type has taken the place of what we had written.
            self._book.buffers.set_dropping(True)
            self._book.flushes.expire(now)
            self._book.bars.prune(self._data_clock.now())

    async def _write_pending(self, now: int) -> None:
        # Up to what was accepted by now: more may come in for ever, and there is other work.
        position, settled = self._book.flushes.position(), False
        while not settled and (flush := self._book.flushes.next(self._window, now)) is not None:
            alone = not self._posted and not self._book.flushes.waiting
            send = self._write if alone else self._post
            await send(flush.encoded, self._book.flushes.acknowledge)
            settled = self._book.flushes.settled(position)
            await self._trim()
        if self._doubted or trio.current_time() - self._last_write >= HEARTBEAT_SECONDS:
            await self._write(self._window.encode(Flush((), ())))

    async def _write(self, flush: EncodedFlush, acknowledge: Callable[[], None] = _nothing) -> None:
        """Send a flush, and wait until it is acknowledged."""
        await self._lease.ensure()
        self._posted.append((trio.current_time(), acknowledge))
        self._acknowledged(intact=await self._window.write(flush))

    async def _post(self, flush: EncodedFlush, acknowledge: Callable[[], None] = _nothing) -> None:
        """Send a flush that is acknowledged with the next: one is always on its way."""
        await self._lease.ensure()
        began = trio.current_time()
        self._acknowledged(intact=await self._window.post(flush))
        self._posted.append((began, acknowledge))

    def _acknowledged(self, *, intact: bool) -> None:
        """All that was posted is in the window."""
        if not self._posted:
            return
        now = trio.current_time()
        for began, acknowledge in self._posted:
            self.write_seconds.observe(now - began)
            acknowledge()
            self._last_write = now
            self._doubted = False
        if not intact:
            self._emptied += 1
            self.whole = False
        sent_at = self._posted[-1][0]
        self._posted.clear()
        self._tell_waiting()
        self._lease.wrote(sent_at)

    def _tell_waiting(self) -> None:
        self._heard.set()
        self._heard = trio.Event()

    async def _make_whole(self) -> None:
        """After an outage, also one that emptied it, and at the start: one way for all.

        An empty flush sets the marker and tells whether it was emptied. Then the flushes in flight, and bars:
        what we lack is adopted, what it lacks written with the next flushes. Then, if it was emptied, the
        updates of the last minute. Emptied again meanwhile, or asked again, all is done again.
        """
        history = self.history_read  # another one by the end, if it was asked for again
        with self._trials.of(Task.MARK):
            await self._write(self._window.encode(Flush((), ())))
        with self._trials.of(Task.WRITE):
            for on_its_way in list(self._book.flushes.in_flight):
                await self._write(on_its_way.encoded, self._book.flushes.acknowledge)
        emptied = self._emptied
        pairs = self.pairs
        with self._trials.of(Task.READ):
            if not history.is_set():
                pairs = list(dict.fromkeys([*pairs, *await self._window.pairs_with_bars()]))
            stored = await self._window.all_bars(pairs)
        self._outdated.extend(self._book.bars.prune(self._data_clock.now()))
        for pair, bars in stored.items():
            self._book.bars.adopt(pair, bars)
            # By whole intervals, as everywhere: half of one would be less than its row.
            outdated = self._book.bars.pruned_to
            self._outdated.extend((pair, field) for field in bars if field[0] < outdated)
        missing = self._book.bars.mark_missing(stored)
        if self.history_read is history:
            history.set()
        flushes = self._book.flushes.replay.flushes() if self._replayed != emptied else ()
        with self._trials.of(Task.REPLAY):
            for flush in flushes:
                await self._write(flush)
        if self._emptied == emptied:
            self._replayed = emptied
            self.whole = self.history_read is history
        self._made_whole = {"bars_written": missing, "flushes_replayed": len(flushes)}

    async def _trim(self, *, due: bool = False) -> None:
        if not due and trio.current_time() - self._last_trim < TRIM_SECONDS:
            return
        self._last_trim = trio.current_time()  # of the try: while the window is away, tries take turns
        now = self._data_clock.now()
        self._outdated.extend(self._book.bars.prune(now))
        self._book.flushes.expire(self._clock.now())
        outdated, self._outdated = self._outdated, []
        trim = self._window.encode_trim(
            self.pairs, older_than=now - self._window_length - WINDOW_MARGIN, bars=outdated
        )
        try:
            with self._trials.of(Task.TRIM):
                await self._write(trim)
        except StoreAway:
            self._outdated.extend(outdated)
            raise
