"""Flushes: made of pending updates and changed bars, in flight until they are acknowledged."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import trio

from marketflow.app.instruments.histogram import Histogram
from marketflow.app.ports import EncodedFlush, Flush, Window
from marketflow.app.share.buffers import Buffers
from marketflow.app.share.ledger import SHUTDOWN, Ledger
from marketflow.app.share.replay import Replay
from marketflow.app.share.second_bars import Key, SecondBars

FLUSH_BARS: Final = 5_000
"""Bars in one flush at most. Only restoring the window needs as many."""


class Position(NamedTuple):
    """A point in the order in which updates and bars come in. They are taken in the same order."""

    updates: Mapping[str, int]
    """By exchange, how many updates are before it. An exchange with none pending may be left out."""
    bars: int
    """How many changes of bars are before it."""


class InFlight(NamedTuple):
    """A flush on its way. It stays the same until it is acknowledged, however often it is written."""

    encoded: EncodedFlush
    counts: Mapping[str, int]
    """Updates by exchange."""
    received: Mapping[float, int]
    """When its updates were received (seconds of Trio's clock), and how many at each time."""
    newest: int
    """The greatest timestamp in it (ms), 0 without updates."""
    bars: Sequence[Key]
    """The bars in it."""
    version: int
    """That of the bars in it (see `Outbox`)."""
    begins: Position
    """All before it had been taken, had expired or been dropped when this flush was made."""


class Flushes:
    """The flushes on their way to Redis, oldest first. They are acknowledged in that order.

    An update is *settled* when it is pending no more: it was acknowledged, has expired, or was dropped.
    """

    def __init__(
        self,
        *,
        buffers: Buffers,
        bars: SecondBars,
        ledgers: Mapping[str, Ledger],
        window_length: int,
        replay_memory: int,
    ) -> None:
        """Nothing is in flight yet.

        Args:
            buffers: where updates are taken from.
            bars: where changed bars are taken from.
            ledgers: by exchange.
            window_length: older updates (ms) are not written to the window.
            replay_memory: bytes of acknowledged flushes that are kept.
        """
        self.in_flight: deque[InFlight] = deque()
        self.replay = Replay(length=window_length, memory=replay_memory)
        self.latency = Histogram()
        """Of each cached update the seconds from its receipt until Redis had acknowledged it."""
        self._buffers = buffers
        self._bars = bars
        self._ledgers = ledgers
        self._window_length = window_length

    # ---- out ----

    def next(self, window: Window, now: int) -> InFlight | None:
        """Make the next flush, None if nothing waits. It is in flight until it is acknowledged.

        Updates that are too old for the window at `now` (ms) are left out, and counted as expired.
        """
        oldest = now - self._window_length
        while True:
            waiting = self._buffers.waiting()
            begins = self._taken_of(waiting)
            taken = self._buffers.take(waiting, oldest)
            bars, version = self._bars.take_unflushed(FLUSH_BARS)
            if taken.runs or bars:
                break
            self._buffers.notify()
            if not self._buffers:
                return None
            # All that was taken has expired; there is more behind it.
        flush = InFlight(
            encoded=window.encode(Flush([run.updates for run in taken.runs], bars)),
            counts=taken.counts,
            received=taken.received,
            newest=max([run.newest for run in taken.runs], default=0),
            bars=[(pair, field) for pair, field, _ in bars],
            version=version,
            begins=begins,
        )
        self.in_flight.append(flush)
        return flush

    def acknowledge(self) -> None:
        """The oldest flush in flight, if there is one still, is in Redis."""
        if not self.in_flight:
            return
        flush = self.in_flight.popleft()
        for exchange, count in flush.counts.items():
            self._ledgers[exchange].cache(count)
        self._bars.outbox.acknowledge(flush.bars, flush.version)
        now = trio.current_time()
        for received, count in flush.received.items():
            self.latency.observe(now - received, count)
        if flush.counts:
            self.replay.keep(flush.encoded, flush.newest)
        self._buffers.notify()

    def expire(self, now: int) -> None:
        """Forget what has left the window at `now` (ms) while it could not be written."""
        self.replay.forget_before(now)
        self._buffers.expire(now - self._window_length)

    def drop_pending(self, reason: str = SHUTDOWN) -> None:
        """Nothing is written any more: drop what is pending. Its bars wait again, to be spooled."""
        self._bars.outbox.put_back()
        self.in_flight.clear()
        self._buffers.drop_all(reason)

    # ---- how far they are ----

    @property
    def drained(self) -> bool:
        """Whether everything has been acknowledged: nothing pending, no bar changed."""
        return not self.in_flight and not self.waiting

    @property
    def waiting(self) -> bool:
        """Whether there is something that no flush has taken."""
        return bool(self._bars.outbox.waiting) or bool(self._buffers)

    def position(self) -> Position:
        """Behind all that is accepted up to now."""
        accepted = {exchange: ledger.accepted for exchange, ledger in self._ledgers.items() if ledger.pending}
        return Position(accepted, self._bars.outbox.changes)

    def settled(self, position: Position) -> bool:
        """Whether the updates before that position are settled."""
        return all(self._settled(exchange) >= count for exchange, count in position.updates.items())

    def bars_settled(self, position: Position) -> bool:
        """Whether the bars before that position have been acknowledged, as they were then or newer."""
        taken_to = self.in_flight[0].begins.bars if self.in_flight else self._bars.outbox.taken_to
        return taken_to >= position.bars

    def _settled(self, exchange: str) -> int:
        """How many updates of an exchange are before the oldest that is pending."""
        for flush in self.in_flight:
            # Later ones may have expired meanwhile: the ledger's number alone tells nothing of this one.
            if exchange in flush.counts:
                return flush.begins.updates[exchange]
        return self._ledgers[exchange].settled

    def _taken_of(self, exchanges: Iterable[str]) -> Position:
        """Behind all of these exchanges' updates, and all bars, that wait no more to be taken."""
        taken = {exchange: self._ledgers[exchange].settled for exchange in exchanges}
        for flush in self.in_flight:
            for exchange, count in flush.counts.items():
                if exchange in taken:
                    taken[exchange] += count
        return Position(taken, self._bars.outbox.taken_to)
