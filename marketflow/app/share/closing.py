"""Tells which intervals are closed, and when the next may be."""

from __future__ import annotations

from marketflow.app.ports import Clock
from marketflow.domain.periods import SECOND


class Closing:
    """An interval is closed a grace after its end, by the wall clock."""

    def __init__(self, clock: Clock, *, grace: int) -> None:
        """`grace` in ms."""
        self._clock = clock
        self._grace = grace

    @property
    def now(self) -> int:
        """The wall clock (Unix ms)."""
        return self._clock.now()

    @property
    def closed_to(self) -> int:
        """Intervals that end at or before this time (ms) are closed."""
        return self._clock.now() - self._grace

    @property
    def until_next_second(self) -> float:
        """Seconds until an interval may be closed.

        It is computed from the wall clock each time, so that no interval is missed or late.
        """
        return (SECOND - self.closed_to % SECOND) / 1_000
