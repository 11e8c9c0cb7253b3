"""The states of a feed, and what leads from one to another. No I/O.

```
               start                connected
     stopped ────────> connecting ─────────────> connected <──┐
        ^                ^   │                    │   ^  └────┘ connected
        │          retry │   │ failed      failed │   │
        │                │   v                    │   │ connected
        │         ┌─> backing off <───────────────┘   │
        │  failed └────┘  └───────────────────────────┘
        │
        └── stop, from each of the others
```
A source may report the end of its connection before it returns. The feed is backing off then, while the
source still sends what it has received. It fails once more when the source returns, or is connected again if
the source has made another connection. A source of several connections may report each of them.
"""

from __future__ import annotations

import math
from typing import Final, Literal

import attrs

State = Literal["stopped", "connecting", "connected", "backing off"]
Event = Literal["start", "connected", "failed", "retry", "stop"]

TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    ("stopped", "start"): "connecting",
    ("connecting", "connected"): "connected",
    ("connecting", "failed"): "backing off",
    ("connecting", "stop"): "stopped",
    # A source may connect to several places, and say so for each.
    ("connected", "connected"): "connected",
    ("connected", "failed"): "backing off",
    ("connected", "stop"): "stopped",
    ("backing off", "retry"): "connecting",
    # The source has reported the end of its connection, and has not returned yet.
    ("backing off", "failed"): "backing off",
    ("backing off", "connected"): "connected",
    ("backing off", "stop"): "stopped",
}
"""All that can happen. Anything else is a bug."""


class WrongEvent(Exception):
    """The event cannot happen in this state."""


@attrs.define
class FeedState:
    """How a feed is. Times are in seconds of Trio's clock."""

    state: State = "stopped"
    since: float = -math.inf
    """When this state began."""
    running_since: float = -math.inf
    """When the feed was last started."""
    reconnects: int = 0
    """How many connections were made because one had ended: not the first of a run."""
    bugs: int = 0
    """How many bugs of the source or its codec were noticed: wrong errors, and forgotten stops."""
    last_error: str | None = None
    """Why the last connection of this run ended, or could not be made; None before there was a failure."""
    next_chunk: int = 0
    """The number of the next run's first chunk: numbers go on over all runs."""
    _was_connected: bool = False
    """Whether there was a connection in this run."""

    @property
    def connected(self) -> bool:
        """Whether the exchange can be read."""
        return self.state == "connected"

    def start(self, now: float) -> None:
        """A run begins."""
        self._go("start", now)
        self.running_since = now
        self.last_error = None
        self._was_connected = False

    def connect(self, now: float) -> bool:
        """The source has a connection. Returns whether there was none before."""
        was_connected = self.connected
        self._go("connected", self.since if was_connected else now)
        if was_connected:
            return False
        self.reconnects += self._was_connected
        self._was_connected = True
        return True

    def fail(self, now: float, error: str, *, bug: bool = False) -> None:
        """The connection ended, or could not be made."""
        self._go("failed", self.since if self.state == "backing off" else now)
        self.last_error = error
        self.bugs += bug

    def retry(self, now: float) -> None:
        """The pause is over."""
        self._go("retry", now)

    def stop(self, now: float) -> None:
        """The run ends."""
        self._go("stop", now)

    def _go(self, event: Event, now: float) -> None:
        following = TRANSITIONS.get((self.state, event))
        if following is None:
            raise WrongEvent(f"{event} while {self.state}")
        self.state, self.since = following, now
