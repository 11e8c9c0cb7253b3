"""Clocks that stay safe when the wall clock steps. Deletion by age uses one that does not jump ahead."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Collection, Mapping
from typing import Final

import structlog
import trio

from marketflow.app.ports import Clock

log = structlog.get_logger()

STEP: Final = 1_000
"""A step of the wall clock by more ms than this is logged."""
DOUBT: Final = 60_000
"""The time in ms after which a step ahead is accepted, if accepting it discards data."""
AFTER_FEEDS: Final = 0.004
"""Seconds from a beat, at which feeds read, to a delayed flush. By then their chunks are in the book."""


def next_beat(now: float, interval: float) -> float:
    """The next multiple of the interval; both in seconds of Trio's clock.

    All tasks that wait for it wake up together, which saves wake-ups. It is at least a hundredth of the
    interval ahead of `now`, so that it is not the beat that has just passed.
    """
    return math.floor(now / interval + 1.01) * interval


class Beat:
    """The multiples of an interval (seconds of Trio's clock), for any number of tasks that wait for them.

    One task sleeps, and the others wait for its event: Trio ends a sleep by a cancellation, which costs five
    times as much as an event. If the sleeping task is cancelled, the others get their beat early.

    All of them go on in the same turn of the event loop. So what they do at the beat is done together.
    """

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._next: trio.Event | None = None
        """Set at the next beat; None while no task waits for it."""

    def after(self, now: float) -> float:
        """When the next beat is (seconds of Trio's clock)."""
        return next_beat(now, self.interval)

    async def wait(self) -> None:
        """Wait for the next beat."""
        if self._next is not None:
            await self._next.wait()
            return
        self._next = trio.Event()
        try:
            await trio.sleep_until(self.after(trio.current_time()))
        finally:
            self._next.set()
            self._next = None
        await trio.lowlevel.cancel_shielded_checkpoint()  # the others go on in the next turn


class SystemClock:
    """The machine's wall clock."""

    def now(self) -> int:
        """Unix ms, UTC."""
        return time.time_ns() // 1_000_000


class CautiousClock:
    """The wall clock, but a step ahead counts only once it has lasted a minute or longer.

    A clock that jumps a day ahead and is corrected ten seconds later must not make updates count as too old.
    Steps back count at once: they only keep data longer. It must be read at least every few seconds.
    """

    def __init__(self, clock: Clock, *, doubt: int = DOUBT) -> None:
        """`doubt`: how long (ms) a step ahead must have lasted; at least `DOUBT`.

        It should be at least the window's length. Then updates that waited when the clock stepped have left
        the window anyway when the step is accepted.
        """
        self._clock = clock
        self._doubt = max(doubt, DOUBT)
        self._offset = self._now()[1]
        self._least: deque[tuple[float, float]] = deque()
        """(when, offset) with ascending offsets: the first is the smallest within `doubt`."""

    def now(self) -> int:
        """Unix ms, UTC; never ahead of the wall clock."""
        monotonic, offset = self._now()
        if abs(offset - self._offset) > STEP:
            log.warning("wall clock stepped", seconds=round((offset - self._offset) / 1000, 3))
        self._offset = offset
        while self._least and self._least[-1][1] >= offset:
            self._least.pop()
        self._least.append((monotonic, offset))
        while self._least[0][0] < monotonic - self._doubt:
            self._least.popleft()
        return int(monotonic + self._least[0][1])

    def _now(self) -> tuple[float, float]:
        monotonic = trio.current_time() * 1_000
        return monotonic, self._clock.now() - monotonic


class DataClock:
    """The time of the newest data. Deletion by age uses this clock.

    It is the greatest known timestamp plus the time that has passed since, so that data also ages while no
    exchange sends anything. It is never ahead of the wall clock. So a wall clock that is days ahead, even
    from the start, deletes nothing: updates with such timestamps are never accepted.

    A generator takes its timestamps from the wall clock that may be wrong. So its data counts only if there
    is no data of any other exchange.
    """

    def __init__(
        self, clock: CautiousClock, newest: Mapping[str, int], *, generated: Collection[str] = ()
    ) -> None:
        """Nothing is known at first.

        Args:
            clock: the wall clock.
            newest: the greatest known timestamp (Unix ms) by exchange; read on every call.
            generated: exchanges that are generators.
        """
        self._clock = clock
        self._newest = newest
        self._generated = frozenset(generated)
        self._ahead = -math.inf
        """How far (ms) the data is ahead of Trio's clock."""
        self._generated_ahead = -math.inf
        """The same for generated data."""

    def see(self, exchange: str, timestamp: int) -> None:
        """Take note of data of that timestamp (Unix ms)."""
        ahead = timestamp - trio.current_time() * 1_000
        if exchange in self._generated:
            self._generated_ahead = max(self._generated_ahead, ahead)
        else:
            self._ahead = max(self._ahead, ahead)

    def now(self) -> int:
        """Unix ms, UTC; 0 while there is no data, so that nothing counts as old."""
        for exchange, timestamp in self._newest.items():
            self.see(exchange, timestamp)
        wall = self._clock.now()
        ahead = self._generated_ahead if self._ahead == -math.inf else self._ahead
        return 0 if ahead == -math.inf else min(wall, int(trio.current_time() * 1_000 + ahead))
