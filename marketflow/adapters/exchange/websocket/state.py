"""The states of a session, which is one connection to an exchange. No I/O.

```
          attempt            opened             welcomed                decided
 waiting ────────> opening ─────────> greeting ───────────> subscribing ─────────> live
                                                                 │                  │
                                                                 │ retire           │ retire
                                                                 └───> retiring <───┘
 ended, from each of the others ──> closed
```
It waits until another attempt is within the exchange's limits. An exchange without a greeting has welcomed
us as soon as the connection is open. Trades may come from `subscribing` on, and still come while we retire.
"""

from __future__ import annotations

from typing import Final, Literal

from trio_util import AsyncValue

State = Literal["waiting", "opening", "greeting", "subscribing", "live", "retiring", "closed"]
Event = Literal["attempt", "opened", "welcomed", "decided", "retire", "ended"]

TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    ("waiting", "attempt"): "opening",
    ("opening", "opened"): "greeting",
    ("greeting", "welcomed"): "subscribing",
    ("subscribing", "decided"): "live",
    ("subscribing", "retire"): "retiring",
    ("live", "retire"): "retiring",
    ("waiting", "ended"): "closed",
    ("opening", "ended"): "closed",
    ("greeting", "ended"): "closed",
    ("subscribing", "ended"): "closed",
    ("live", "ended"): "closed",
    ("retiring", "ended"): "closed",
}
"""All that changes the state. In other states these events change nothing: a second welcome, for example."""


class Progress:
    """The state of a session, for which tasks can wait."""

    def __init__(self) -> None:
        self._state = AsyncValue[State]("waiting")

    @property
    def state(self) -> State:
        """The state now."""
        state: State = self._state.value
        return state

    @property
    def is_connected(self) -> bool:
        """Whether the exchange can be read."""
        return self.state in {"subscribing", "live"}

    @property
    def has_ended(self) -> bool:
        """Whether it is closed."""
        return self.state == "closed"

    def go(self, event: Event) -> bool:
        """Something has happened. Returns whether that has changed the state."""
        following = TRANSITIONS.get((self.state, event))
        if following is None:
            return False
        self._state.value = following
        return True

    async def until(self, *states: State) -> None:
        """Wait for one of these states."""
        await self._state.wait_value(lambda state: state in states)
