"""Whether a thread uses a connection, and who closes it."""

from __future__ import annotations

from enum import Enum


class Usage(Enum):
    """The state of one connection.

    ```
               begin                  give up
       ┌─────────────────> USED ───────────────────> ENDING
      IDLE <──────────────  │                          │
       │         end                                   │ end: the thread closes it
       └────────────────────────────────────────────> OVER
               give up: closed at once
    ```
    A connection that a thread uses must not be freed. So the thread closes it when its call has ended.
    """

    IDLE = "idle"
    USED = "used"
    ENDING = "ending"
    """It is given up, and a thread still uses it."""
    OVER = "over"
    """It is given up, and no thread uses it."""

    def begin(self) -> Usage:
        """A thread is about to use it. A thread that starts too late finds that it is over."""
        return Usage.USED if self is Usage.IDLE else self

    def end(self) -> Usage:
        """The thread does not use it any more."""
        match self:
            case Usage.USED:
                return Usage.IDLE
            case Usage.ENDING:
                return Usage.OVER
        return self

    def give_up(self) -> Usage:
        """It is not to be used any more."""
        match self:
            case Usage.IDLE:
                return Usage.OVER
            case Usage.USED:
                return Usage.ENDING
        return self

    @property
    def wanted(self) -> bool:
        """Whether it has not been given up."""
        return self in (Usage.IDLE, Usage.USED)
