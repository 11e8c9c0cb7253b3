"""Tells which intervals are closed, and when the next may be."""

from __future__ import annotations

from typing import Final

from marketflow.app.ports import Clock
from marketflow.domain.periods import MINUTE, SECOND
from marketflow.domain.prices import FUTURE_TOLERANCE

AHEAD: Final = MINUTE + FUTURE_TOLERANCE
"""How far (ms) ahead of the clock an interval with updates may end: none is longer than a minute."""


class Closing:
    """An interval is closed a grace after its end, by the wall clock, or earlier if no update can come.

    ```
     by the clock ──close_all──> all closed
    ```
    """

    def __init__(self, clock: Clock, *, grace: int) -> None:
        """`grace` in ms."""
        self._clock = clock
        self._grace = grace
        self._all = False

    def close_all(self) -> None:
        """Open intervals count as closed from now on: nobody accepts updates of them."""
        self._all = True

    @property
    def now(self) -> int:
        """The wall clock (Unix ms)."""
        return self._clock.now()

    @property
    def closed_to(self) -> int:
        """Intervals that end at or before this time (ms) are closed."""
        return self._clock.now() + (AHEAD if self._all else -self._grace)

    @property
    def until_next_second(self) -> float:
        """Seconds until an interval may be closed.

        It is computed from the wall clock each time, so that no interval is missed or late.
        """
        return (SECOND - self.closed_to % SECOND) / 1_000
