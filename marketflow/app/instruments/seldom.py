"""Limits the log lines about what clients or foreign data can cause at any rate."""

from __future__ import annotations

import math
from typing import Final

import trio

FOREIGN_LOG_EVERY: Final = 60.0
"""The least number of seconds between two log lines about foreign data of one kind in a store. Each question
may find the same data again."""


class Seldom:
    """Lets one line in so many seconds into the log, and counts the others."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = -math.inf
        self._others = 0

    def turn(self, events: int = 1) -> int | None:
        """Returns how many events had no line since the last line, or None if these get none, either.

        The `events` happened together and have one line. All but one of them count as others.
        """
        now = trio.current_time()
        if now < self._last + self._seconds:
            self._others += events
            return None
        others, self._last, self._others = self._others + events - 1, now, 0
        return others
