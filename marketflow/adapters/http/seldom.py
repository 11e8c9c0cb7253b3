"""A line in the log for what may happen as often as a client likes."""

from __future__ import annotations

import math

import trio


class Seldom:
    """Lets one line in so many seconds into the log, and counts the others."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = -math.inf
        self._others = 0

    def turn(self) -> int | None:
        """How many lines were left out since the last one; None: leave this one out, too."""
        now = trio.current_time()
        if now < self._last + self._seconds:
            self._others += 1
            return None
        others, self._last, self._others = self._others, now, 0
        return others
