"""The rows of the table, one for each measured value."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import attrs


@attrs.frozen(kw_only=True)
class Row:
    """One row of the table. Its goal, if it has one, is for the median of its rounds."""

    name: str
    what: str
    goal: str = ""
    """The goal as text."""
    at_most: float | None = None
    """The goal in units of the row."""
    at_least: float | None = None
    unit: str
    rounds: Sequence[float]
    """The value of each round."""
    limit: float | None = None
    limit_is: str = ""
    """What the limit is, as text."""
    raw: dict[str, Any] = attrs.field(factory=dict)
    """Other measured values."""

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rounds)

    @property
    def ratio(self) -> float | None:
        """The median divided by the limit; None without a limit."""
        if self.limit is None:
            return None
        return self.median / self.limit if self.limit else math.nan

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        if self.at_most is None and self.at_least is None:
            return None
        low = -math.inf if self.at_least is None else self.at_least
        high = math.inf if self.at_most is None else self.at_most
        return low <= self.median <= high


def percentile(values: Sequence[float], part: float) -> float:
    """The value that this percentage of the values does not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * part / 100) - 1)]
