"""An exchange that this node has: under which term, and for how long it may be sure of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum
from typing import Final

import attrs
import trio

from marketflow.app.ports import NEVER, SeenLease, Term


class Ending(Enum):
    """How a node ceased to have an exchange."""

    IN_ORDER = "in order"
    """All that the stores take was stored. Or the exchange was sealed, if that was all."""
    UNSEALED = "unsealed"
    """It was only to be sealed, and the node has ended before that. The lease must not be given back."""
    FENCED = "fenced"
    """A store has refused the term, since there is a later one, or since it knows none."""
    LOST = "lost"
    """The database gave it to another node, or knows nothing of the term."""


@attrs.frozen
class Ended:
    """The end of a tenure."""

    how: Ending
    met: int = NEVER
    """The epoch of a later term that was met in the window; `NEVER` if none was."""


class Hold:
    """The lease of one exchange, as its holder reckons it.

    ```
              taken           not seen, or another's
     taking ────────> sure ─────────────────────────> lost
                      │  ^                              ^
          not renewed │  │ renewed                      │
                      v  │                              │
                     unsure ────────────────────────────┘
    ```
    Being unsure ends nothing: with the database away no other node can take the exchange. But what needs the
    database's word, such as sealing a fence, waits for it.
    """

    def __init__(self, term: Term, elapsed: Callable[[], float], stopping: trio.Event | None = None) -> None:
        """Makes one whose term has not begun.

        Args:
            term: under which the exchange is taken.
            elapsed: seconds of a clock that never steps, and goes on while the machine is suspended.
            stopping: set when the node is to end; None: it never is.
        """
        self.term: Final = term
        self.stopping: Final = trio.Event() if stopping is None else stopping
        self.movable: Callable[[], bool] = lambda: True
        """Whether all that is accepted gets into the window, so that another node would find it there."""
        self.leaving: Final = trio.Event()
        """Set when the exchange is to be given back in order.

        If it is set from the start, the exchange is only sealed."""
        self.closes = False
        """Whether it is given back since the mode was switched: nobody has it next, so its open intervals get
        their rows at once."""
        self.lost: Final = trio.Event()
        """Set when another node has it, or the database knows nothing of our term."""
        self._elapsed = elapsed
        self._sure_until = -math.inf
        self._begun_at = math.inf
        """When the database said that the term has begun."""

    @property
    def begun(self) -> bool:
        """Whether the term has begun."""
        return self._begun_at < math.inf

    def confirmed(self) -> bool:
        """Whether the database has said that the exchange is ours, and that is sure to hold still."""
        return not self.lost.is_set() and self._elapsed() < self._sure_until

    def taken(self, sent_at: float, lasts: float) -> None:
        """The term has begun. The lease was asked for at `sent_at`, and is good for `lasts` seconds.

        It is reckoned from before the question was sent, so that it ends here before it does in the database.
        """
        self._begun_at = self._elapsed()
        self._sure_until = sent_at + lasts

    def seen(self, lease: SeenLease | None, sent_at: float, lasts: float | None) -> None:
        """The database was asked at `sent_at`. `lasts`: it was also asked to renew the lease, for so long.

        What was asked before the term had begun tells nothing of it.
        """
        if sent_at < self._begun_at:
            return
        if lease is None or lease.term != self.term or lease.released:
            self.lost.set()
        elif lasts is not None:
            self._sure_until = sent_at + lasts
