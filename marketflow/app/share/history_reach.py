"""From when on the history of earlier boots is known.

The bars of the open minutes are read first, so that questions about these are answered before all are read.
"""

from __future__ import annotations

from typing import Final

import attrs

from marketflow.app.share.history import ALL_TIME, History
from marketflow.domain.bars import BAR_WIDTH
from marketflow.domain.periods import ceil_to, floor_to
from marketflow.domain.prices import FUTURE_TOLERANCE

NEVER: Final = ALL_TIME.end
"""A time (ms) after all others."""


@attrs.frozen
class HistoryReach:
    """How far back the history goes, at one moment."""

    history: History
    began_at: int | None
    """When this boot began to accept updates (Unix ms); None before that."""
    interval: int
    """The length of an aggregate (ms)."""

    @property
    def known_from(self) -> int:
        """From when on (ms) the bars of earlier boots are known; 0: all that they have left.

        While rows have yet to tell which bars are missing, these may be in intervals before the one in which
        this boot began. That one was open, and has no row.
        """
        if self.history.known:
            return 0
        if self.began_at is None:
            return NEVER
        read = self.history.reach
        if self.began_at + FUTURE_TOLERANCE not in read:
            # Earlier boots may have accepted updates up to then: some of their bars are unread.
            return ceil_to(self.began_at, BAR_WIDTH)
        return max(read.start, floor_to(self.began_at, self.interval)) if self.history.doubted else read.start

    @property
    def complete_from(self) -> int:
        """From when on (ms) no reading or comparison that is under way can add anything.

        Another boot may have written since the last reading: then it is what the next one has read.
        """
        if self.history.up_to_date:
            return self.known_from
        newest = self.history.newest
        return NEVER if newest.empty else max(self.known_from, newest.start)
