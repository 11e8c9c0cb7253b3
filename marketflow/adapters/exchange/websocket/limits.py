"""A strict limit of events in time: at most so many within any span of so many seconds. No I/O.

```
 limit of 3 in 10 s      x  x    x |      the next may happen 10 s after the third last
                         └─ 10 s ──┘
```
A bucket that fills up again would allow nearly twice as many in one span. Exchanges count without mercy, and
ban an address that sends too much.
"""

from __future__ import annotations

import math
from collections import deque

from marketflow.adapters.exchange.venues.venue import Rate


class RollingWindow:
    """The newest events under a limit. Times are in seconds of one clock, and never go back."""

    def __init__(self, rate: Rate) -> None:
        self._seconds = rate.seconds
        self._newest: deque[float] = deque(maxlen=rate.most)
        """When they happened: as many as one span may have."""

    @property
    def next_at(self) -> float:
        """From when on the next event may happen."""
        if len(self._newest) < (self._newest.maxlen or 1):
            return -math.inf
        return self._newest[0] + self._seconds

    def note(self, now: float) -> None:
        """An event happens."""
        self._newest.append(now)
