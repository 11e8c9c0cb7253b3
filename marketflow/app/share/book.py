"""The book: the live state in memory. Batches come in, flushes go out, and the ledgers always add up."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import attrs
import trio

from marketflow.app.ports import Batch, EncodedFlush, Flush, Window, Written
from marketflow.app.share.ledger import OVERFLOW, SHUTDOWN, Ledger
from marketflow.app.share.pending import PendingUpdates, UpdateRun
from marketflow.app.share.replay import Replay
from marketflow.app.share.second_bars import SecondBars
from marketflow.app.share.unflushed import Key
from marketflow.app.watch.histogram import Histogram

FLUSH_UPDATES: Final = 8_000
"""Updates in one flush at most: half a MB, and 12 to 20 ms of Redis' time. So long may an exchange that sends
little have to wait for one that floods. Much smaller ones leave Redis without work in between."""
FLUSH_BARS: Final = 5_000
"""Bars in one flush at most. Only a replay has as many."""
MOST_AHEAD: Final = 50_000
"""Updates of an exchange that wait at most while Redis answers, if that is less than its limit. More would
only be older when they are written, and out of the processor's cache."""


@attrs.frozen
class Position:
    """A point in the order in which updates and bars leave the book, which is that in which they came in."""

    updates: Mapping[str, int]
    """By exchange, how many updates are before it."""
    bars: int
    """How many changed bars are before it."""


@attrs.frozen
class InFlight:
    """A flush on its way. It stays the same until it is acknowledged, however often it is written."""

    encoded: EncodedFlush
    counts: Mapping[str, int]
    """Updates by exchange."""
    received: Mapping[float, int]
    """When its updates were received (seconds of Trio's clock), and how many at each time."""
    newest: int
    """The greatest timestamp in it (ms), 0 without updates."""
    bars: AbstractSet[Key]
    """The bars in it."""
    begins: Position
    """What had been taken, or had expired or been dropped, before it was made."""


@attrs.frozen
class Taken:
    """Updates that were taken for a flush."""

    runs: list[UpdateRun] = attrs.field(factory=list)
    counts: Counter[str] = attrs.field(factory=Counter)
    """By exchange."""
    received: Counter[float] = attrs.field(factory=Counter)
    """By the time of their receipt (seconds of Trio's clock)."""


class Book:
    """Live state of one boot.

    All methods but `enter` are synchronous: whoever calls them sees and leaves a whole state. The bounds on
    pending updates are per exchange, so that one that floods never starves another.
    """

    def __init__(
        self,
        *,
        boot: str,
        limits: Mapping[str, int],
        window_length: int,
        replay_memory: int,
        interval: int,
    ) -> None:
        """Times in ms.

        Args:
            boot: unique id of this run.
            limits: pending updates at most, by exchange; names every exchange of both modes.
            window_length: updates older than that are not written to the window.
            replay_memory: bytes of acknowledged flushes that are kept.
            interval: length of an aggregate.
        """
        self.boot = boot
        self.bars = SecondBars(boot=boot, interval=interval)
        self.ledgers = {exchange: Ledger() for exchange in limits}
        self.last_accepted: dict[str, float] = {}
        """By exchange, when an update was last accepted (seconds of Trio's clock)."""
        self.latency = Histogram()
        """Of each cached update the seconds from its receipt until Redis had acknowledged it."""
        self.replay = Replay(length=window_length, memory=replay_memory)
        self.in_flight: deque[InFlight] = deque()
        """The flushes on their way, oldest first."""
        self._limits = dict(limits)
        self._window_length = window_length
        self._pending = {exchange: PendingUpdates() for exchange in limits}
        self.began_at: int | None = None
        """When this boot began to accept updates (Unix ms); None before that."""
        self._next_sequence = 0
        self._dropping = False
        self._changed = trio.Event()
        self._entered = trio.lowlevel.ParkingLot()
        self.ended = trio.Event()
        """Set when no batch will enter any more."""

    # ---- in ----

    def begin(self, now: int) -> None:
        """Updates will enter from `now` (Unix ms) on.

        To be called once the stores are held. Until then another boot may have accepted updates, whose
        sequences must be less than ours.
        """
        self.began_at = now
        self._next_sequence = now * 1_000

    async def enter(self, batch: Batch) -> None:
        """Take in a batch; while the exchange's buffer is full and Redis answers, wait first."""
        accepted = batch.accepted
        while not self._dropping and not self._has_room(batch.exchange, accepted):
            await self._changed.wait()
        self.apply(batch)

    def apply(self, batch: Batch) -> None:
        """Take in a batch now: counters, bars, and updates to be flushed, in one step."""
        exchange = batch.exchange
        self.ledgers[exchange].enter(batch)
        pending, received = self._pending[exchange], batch.received_monotonic
        for symbol, timestamps, prices, bars in batch.updates:
            first = self._next_sequence
            self._next_sequence = end = first + len(timestamps)
            for second, bar in bars.items():
                self.bars.add((exchange, symbol), second, bar, first)
            written = Written(exchange, symbol, range(first, end), timestamps, prices)
            pending.append(UpdateRun.in_bars(written, received, bars.values()))
        if batch.updates:
            self.last_accepted[exchange] = trio.current_time()
            if self._entered:
                self._entered.unpark_all()
        if self._dropping:
            self._drop_overflow(exchange)

    def end(self) -> None:
        """No batch will enter any more: every source and pool has ended."""
        self.ended.set()

    def _has_room(self, exchange: str, accepted: int) -> bool:
        pending = self.ledgers[exchange].pending
        return pending == 0 or pending + accepted <= min(self._limits[exchange], MOST_AHEAD)

    # ---- overload ----

    def set_dropping(self, dropping: bool) -> None:
        """Decide what full buffers do: push back to the socket, or (with Redis away) drop the oldest."""
        self._dropping = dropping
        if dropping:
            for exchange in self._pending:
                self._drop_overflow(exchange)
        self._notify()

    def _drop_overflow(self, exchange: str) -> None:
        ledger = self.ledgers[exchange]
        excess = ledger.pending - self._limits[exchange]
        if excess > 0:
            ledger.drop(self._pending[exchange].discard(excess), OVERFLOW)

    def drop_pending(self) -> None:
        """Give up what could not be written before the stop; the bars have it."""
        for exchange, ledger in self.ledgers.items():
            self._pending[exchange].discard(ledger.pending)
            ledger.drop(ledger.pending, SHUTDOWN)
        for flush in self.in_flight:
            self.bars.put_back(flush.bars)
        self.in_flight.clear()
        self._notify()

    # ---- out ----

    def next_flush(self, window: Window, now: int) -> InFlight | None:
        """What is to be written next, None if nothing is. It is in flight until it is acknowledged.

        Updates that are too old for the window at `now` (ms) are left out, and counted as expired.
        """
        oldest = now - self._window_length
        while True:
            begins = self._taken_of([exchange for exchange, pending in self._pending.items() if pending])
            taken = self._take(oldest)
            bars = self.bars.take_unflushed(FLUSH_BARS)
            if taken.runs or bars:
                break
            self._notify()
            if not any(self._pending.values()):
                return None
            # All that was taken has expired; there is more behind it.
        flush = InFlight(
            encoded=window.encode(Flush([run.updates for run in taken.runs], bars)),
            counts=taken.counts,
            received=taken.received,
            newest=max([run.newest for run in taken.runs], default=0),
            bars=frozenset([(pair, field) for pair, field, _ in bars]),
            begins=begins,
        )
        self.in_flight.append(flush)
        return flush

    def _take(self, oldest: int) -> Taken:
        """Take updates for a flush from each exchange; those before `oldest` (ms) are counted as expired."""
        taken = Taken()
        waiting = [exchange for exchange, pending in self._pending.items() if pending]
        for exchange in waiting:
            # What is on its way cannot be dropped: two flushes are, and the newest need half of the room.
            limit = max(1, min(FLUSH_UPDATES // len(waiting), self._limits[exchange] // 4))
            for run in self._pending[exchange].take(limit):
                kept = run.since(oldest)
                if kept is not None:
                    taken.runs.append(kept)
                    taken.counts[exchange] += kept.length
                    taken.received[kept.received_monotonic] += kept.length
                if kept is not run:
                    self.ledgers[exchange].expire(run.length - (kept.length if kept else 0))
        return taken

    def acknowledge(self) -> None:
        """The oldest flush in flight, if there is one still, is in Redis."""
        if not self.in_flight:
            return
        flush = self.in_flight.popleft()
        for exchange, count in flush.counts.items():
            self.ledgers[exchange].cache(count)
        now = trio.current_time()
        for received, count in flush.received.items():
            self.latency.observe(now - received, count)
        if flush.counts:
            self.replay.keep(flush.encoded, flush.newest)
        self._notify()

    def expire(self, now: int) -> None:
        """Forget what has left the window at `now` (ms) while it could not be written."""
        oldest = now - self._window_length
        for exchange, pending in self._pending.items():
            expired = pending.discard_before(oldest)
            if expired:
                self.ledgers[exchange].expire(expired)
        self.replay.forget_before(now)
        self._notify()

    @property
    def drained(self) -> bool:
        """Whether everything has been acknowledged: nothing pending, no bar changed."""
        return not self.in_flight and not self.waiting

    @property
    def waiting(self) -> bool:
        """Whether there is something that no flush has taken."""
        return bool(self.bars.unflushed) or any(self._pending.values())

    def bars_acknowledged(self, keys: AbstractSet[Key]) -> bool:
        """Whether none of these bars is to be written, or on its way."""
        on_its_way = (flush.bars for flush in self.in_flight)
        return self.bars.unflushed.isdisjoint(keys) and all(map(keys.isdisjoint, on_its_way))

    def position(self) -> Position:
        """Behind all that is accepted up to now."""
        accepted = {exchange: ledger.accepted for exchange, ledger in self.ledgers.items()}
        return Position(accepted, self.bars.outbox.position)

    def _taken_of(self, exchanges: Iterable[str]) -> Position:
        """Behind all of these exchanges' updates, and all bars, that wait no more to be taken."""
        on_its_way = Counter[str]()
        for flush in self.in_flight:
            on_its_way.update(flush.counts)
        taken = {exchange: self.ledgers[exchange].settled + on_its_way[exchange] for exchange in exchanges}
        return Position(taken, self.bars.outbox.taken)

    @property
    def limits(self) -> Mapping[str, int]:
        """Pending updates at most, by exchange."""
        return self._limits

    def settled(self, position: Position) -> bool:
        """Whether the updates before that position are pending no more."""
        return all(self._settled(exchange) >= count for exchange, count in position.updates.items())

    def _settled(self, exchange: str) -> int:
        """How many updates of an exchange are before the oldest that is pending."""
        for flush in self.in_flight:
            # Later ones may have expired meanwhile: the ledger's number alone tells nothing of this one.
            if exchange in flush.counts:
                return flush.begins.updates[exchange]
        return self.ledgers[exchange].settled

    def bars_settled(self, position: Position) -> bool:
        """Whether the bars before that position have been acknowledged, as they were then or newer."""
        return (self.in_flight[0].begins.bars if self.in_flight else self.bars.outbox.taken) >= position.bars

    @property
    def next_sequence(self) -> int:
        """Greater than all sequences of updates that have entered."""
        return self._next_sequence

    async def wait_entered(self, sequence: int) -> int:
        """Wait until there are updates from `sequence` on; returns the next sequence then."""
        while self._next_sequence <= sequence:
            await self._entered.park()
        return self._next_sequence

    async def wait_changed(self) -> None:
        """Wait until pending updates have become fewer, or the policy for full buffers has changed."""
        await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
