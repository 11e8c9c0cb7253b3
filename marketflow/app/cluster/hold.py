"""An exchange that this node has: under which term, and for how long it may be sure of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import trio

from marketflow.app.ports import SeenLease, Term


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

    def __init__(self, term: Term, elapsed: Callable[[], float]) -> None:
        """`elapsed`: seconds of a clock that never steps, and goes on while the machine is suspended."""
        self.term: Final = term
        self.leaving: Final = trio.Event()
        """Set when the exchange is to be given back in order.

        If it is set from the start, the exchange is only sealed."""
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
