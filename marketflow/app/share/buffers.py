"""Updates of all exchanges that wait to be flushed, within the limit of each exchange."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import trio

from marketflow.app.share.ledger import OVERFLOW, SHUTDOWN, Ledger
from marketflow.app.share.pending import PendingUpdates, UpdateRun

FLUSH_UPDATES: Final = 8_000
"""Updates in one flush at most: half a MB, and 12 to 20 ms of Redis' time. That is how long an exchange that
sends little may wait for one that floods. Much smaller flushes leave Redis without work in between."""
MOST_AHEAD: Final = 50_000
"""Updates of an exchange that wait at most while Redis answers, if that is less than its limit. More would
only be older when they are written, and out of the processor's cache."""


class Taken(NamedTuple):
    """Updates that were taken for a flush."""

    runs: list[UpdateRun]
    counts: dict[str, int]
    """By exchange."""
    received: dict[float, int]
    """By the time of their receipt (seconds of Trio's clock)."""


class Buffers:
    """The buffer of each exchange, and what happens when one is full.

    While Redis answers, the feed waits, and with it the exchange's socket. With Redis away the oldest
    updates are dropped. The limits are per exchange, so that one that floods never starves another.

    Updates that leave a buffer without being written are counted in the exchange's ledger.
    """

    def __init__(self, *, limits: Mapping[str, int], ledgers: Mapping[str, Ledger]) -> None:
        """`limits` are pending updates at most, by exchange. Those in flight count."""
        self.limits = dict(limits)
        self.queues = {exchange: PendingUpdates() for exchange in limits}
        self._ledgers = ledgers
        self.dropping = False
        self._changed = trio.lowlevel.ParkingLot()
        """Tasks that wait until pending updates have become fewer, or the policy has changed."""

    # ---- in ----

    async def wait_for_room(self, exchange: str, count: int) -> None:
        """Wait until so many updates fit, or may push out older ones."""
        while not self.dropping and not self._has_room(exchange, count):
            await self._changed.park()

    def _has_room(self, exchange: str, count: int) -> bool:
        pending = self._ledgers[exchange].pending
        return pending == 0 or pending + count <= min(self.limits[exchange], MOST_AHEAD)

    def renumber(self, exchange: str, by: int) -> None:
        """Have the sequences of all that waits of the exchange be greater by so much."""
        if exchange in self.queues:
            self.queues[exchange].renumber(by)

    # ---- overload ----

    def set_dropping(self, dropping: bool) -> None:
        """Decide what full buffers do: push back to the socket, or (with Redis away) drop the oldest."""
        self.dropping = dropping
        if dropping:
            for exchange in self.queues:
                self.drop_overflow(exchange)
        self.notify()

    def drop_overflow(self, exchange: str) -> None:
        """Drop the oldest updates of an exchange that is over its limit."""
        ledger = self._ledgers[exchange]
        excess = ledger.pending - self.limits[exchange]
        if excess > 0:
            ledger.drop(self.queues[exchange].discard(excess), OVERFLOW)

    def drop_all(self, reason: str = SHUTDOWN) -> None:
        """Drop all that is pending, in flight or not."""
        for exchange, ledger in self._ledgers.items():
            self.queues[exchange].discard(ledger.pending)
            ledger.drop(ledger.pending, reason)
        self.notify()

    # ---- out ----

    def __bool__(self) -> bool:
        """Whether any update waits to be taken."""
        return any(self.queues.values())

    def waiting(self) -> list[str]:
        """Exchanges whose updates wait to be taken."""
        return [exchange for exchange, queue in self.queues.items() if queue]

    def take(self, waiting: Sequence[str], oldest: int) -> Taken:
        """Take updates for a flush from each of the exchanges `waiting`.

        Those before `oldest` (ms) are counted as expired.
        """
        taken = Taken([], {}, {})
        for exchange in waiting:
            # What is on its way cannot be dropped: two flushes are, and the newest need half of the room.
            limit = max(1, min(FLUSH_UPDATES // len(waiting), self.limits[exchange] // 4))
            count = 0
            for run in self.queues[exchange].take(limit):
                kept = run.since(oldest)
                length = 0 if kept is None else kept.length
                if kept is not None:
                    taken.runs.append(kept)
                    received = kept.received_monotonic
                    taken.received[received] = taken.received.get(received, 0) + length
                    count += length
                if kept is not run:
                    self._ledgers[exchange].expire(run.length - length)
            if count:
                taken.counts[exchange] = count
        return taken

    def expire(self, oldest: int) -> None:
        """Forget updates before `oldest` (ms), as far as they are at the old end."""
        for exchange, queue in self.queues.items():
            expired = queue.discard_before(oldest)
            if expired:
                self._ledgers[exchange].expire(expired)
        self.notify()

    async def wait_changed(self) -> None:
        """Wait until pending updates have become fewer, or the policy for full buffers has changed."""
        await self._changed.park()

    def notify(self) -> None:
        """Pending updates have become fewer."""
        if self._changed:
            self._changed.unpark_all()
