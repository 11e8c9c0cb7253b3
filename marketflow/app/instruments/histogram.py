"""A histogram of durations: counts in fixed buckets; single values are not kept."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

import attrs

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds for durations that are normally about 50 ms, and at most a time limit."""


@attrs.frozen
class Distribution:
    """The state of a histogram at one moment."""

    buckets: Sequence[tuple[float, int]]
    """Ascending upper bounds, the last infinite, each with the number of values up to it."""
    sum: float

    @property
    def count(self) -> int:
        """The number of values."""
        return self.buckets[-1][1]

    def plus(self, other: Distribution) -> Distribution:
        """Both together. They must have the same buckets."""
        counts = zip(self.buckets, other.buckets, strict=True)
        return Distribution(
            [(bound, ours + theirs) for (bound, ours), (_, theirs) in counts], self.sum + other.sum
        )


class Histogram:
    """Counts each value in the bucket of the smallest bound that is not below it."""

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        """`bounds` ascend; one more bucket counts the values above the last."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """Count a value, `count` times."""
        self._counts[bisect_left(self._bounds, value)] += count
        self._sum += value * count

    def read(self) -> Distribution:
        """What was counted so far."""
        bounds = [*self._bounds, math.inf]
        return Distribution(list(zip(bounds, accumulate(self._counts), strict=True)), self._sum)
