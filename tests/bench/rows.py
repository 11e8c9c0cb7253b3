"""What was measured: the lines of the table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import attrs


@attrs.frozen(kw_only=True)
class Row:
    """One line of the table. Its goal, if it has one, is for the median of its rounds."""

    name: str
    what: str
    goal: str = ""
    """For people."""
    at_most: float | None = None
    """The goal in units of the row."""
    at_least: float | None = None
    unit: str
    rounds: Sequence[float]
    """Ours, by round."""
    limit: float | None = None
    limit_is: str = ""
    """What the limit is, for people."""
    raw: dict[str, Any] = attrs.field(factory=dict)
    """All that was measured beside."""

    @property
    def median(self) -> float:
        """Over the rounds."""
        return statistics.median(self.rounds)

    @property
    def ratio(self) -> float | None:
        """To the limit; None without one."""
        if self.limit is None:
            return None
        return self.median / self.limit if self.limit else math.nan

    @property
    def met(self) -> bool | None:
        """Whether the goal is; None without one."""
        if self.at_most is None and self.at_least is None:
            return None
        low = -math.inf if self.at_least is None else self.at_least
        high = math.inf if self.at_most is None else self.at_most
        return low <= self.median <= high


def percentile(values: Sequence[float], part: float) -> float:
    """The value that so many percent of them do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * part / 100) - 1)]
