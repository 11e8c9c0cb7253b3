"""How far this node's clock and the database's are apart. Leases need no clock, but updates do."""

from __future__ import annotations

from typing import Final

import structlog

from marketflow.app.ports import Clock

log = structlog.get_logger()

WRONG_CLOCK: Final = 500
"""By how much (ms) our clock may differ from the database's before health is degraded."""
UNFIT_CLOCK: Final = 2_000
"""Beyond this (ms) the node takes no exchange: too many updates would count as late, or as of the future."""


class ClockOffset:
    """Measured by each answer in which the database tells its time."""

    def __init__(self, clock: Clock) -> None:
        """`clock` is the wall clock."""
        self._clock = clock
        self.offset: int | None = None
        """How far (ms) the database's clock is ahead of ours, at least; None: not measured yet."""

    def now(self) -> int:
        """Our clock (Unix ms)."""
        return self._clock.now()

    def compare(self, theirs: int, sent_at: int) -> None:
        """The database has told its time (Unix ms) in the answer to a question that was sent at `sent_at`.

        It read its clock at any time since then. So a slow answer never looks like a wrong clock.
        """
        offset = theirs - min(max(theirs, sent_at), self._clock.now())
        was_right, self.offset = self.is_right, offset
        if was_right and not self.is_right:
            log.warning("clock differs from the database's", seconds=offset / 1_000)

    @property
    def is_right(self) -> bool:
        """Whether our clock agrees with the database's, as far as we know."""
        return abs(self.offset or 0) <= WRONG_CLOCK

    def may_take(self) -> bool:
        """Whether our clock is good enough to take exchanges."""
        return abs(self.offset or 0) <= UNFIT_CLOCK
