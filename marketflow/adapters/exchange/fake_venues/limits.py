"""A limit of events in any span of some seconds. No I/O."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from marketflow.adapters.exchange.fake_venues.protocol import Rate


class Window:
    """Counts events in a rolling window. Times are seconds of Trio's clock."""

    def __init__(self, rate: Rate | None) -> None:
        """None: there is no limit."""
        self.rate = rate
        self._times: deque[float] = deque()

    def excess(self, now: float) -> str | None:
        """Count an event; says which limit it exceeds, if it does."""
        if self.rate is None:
            return None
        while self._times and self._times[0] <= now - self.rate.seconds:
            self._times.popleft()
        self._times.append(now)
        if len(self._times) <= self.rate.most:
            return None
        return f"{len(self._times)} within {self.rate.seconds:g} s (at most {self.rate.most})"
