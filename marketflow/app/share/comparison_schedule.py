"""When rows are compared with bars, and which of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import trio

from marketflow.app.share.history import History
from marketflow.domain.bars import Bar
from marketflow.domain.prices import Pair

COMPARISON_SECONDS: Final = 5.0
"""How often rows are compared with the bars of earlier boots."""


class ComparisonSchedule:
    """When rows are compared, and which: all whenever more can be known, else those that have changed.

    More can be known after the lease was taken again, and after the bars of earlier boots were read.
    """

    def __init__(self) -> None:
        self._compared = (0, 0)
        """The lease and the reading of earlier boots' bars under which all rows were compared last."""
        self._next = -math.inf
        """When to compare again (seconds of Trio's clock)."""
        self._counts: dict[Pair, dict[int, int]] = {}
        """How many updates each row had that was compared, by its interval's start (ms)."""

    def renewed(self, lease: int, history: History) -> bool:
        """Whether all rows are to be compared."""
        return (lease, history.done) != self._compared

    def due(self, lease: int, history: History) -> bool:
        """Whether it is time to compare.

        Rows are searched for what Redis has lost only while the bars are up to date: those that are unread
        may have it.
        """
        again = history.up_to_date and trio.current_time() >= self._next
        return again or self.renewed(lease, history)

    def changed(self, pair: Pair, rows: Mapping[int, Bar]) -> list[int]:
        """The starts (ms) of rows that have another count than when they were compared last.

        To call it is to compare these: bars only grow, so a row that has not changed cannot become fuller.
        """
        known, counts = self._counts.get(pair, {}), {start: row.count for start, row in rows.items()}
        self._counts[pair] = counts
        return [start for start, count in counts.items() if known.get(start) != count]

    def compared(self, lease: int, history: History) -> None:
        """What was due has been compared."""
        self._compared = (lease, history.done)
        self._next = trio.current_time() + COMPARISON_SECONDS
