"""A run of the bench: what it may take, how it tells of its progress, and what it finds."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from tests.bench.stage import Stage

WINDOW = 60.0
"""Seconds: the service's default."""
SHORTEST_WINDOW = 10.0
"""What waits for Redis at flood is some seconds old; past the window it would expire."""


def percentile(values: Sequence[float], part: float) -> float:
    """The value that so many percent of them do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * part / 100) - 1)]


@attrs.frozen
class Row:
    """One line of the table."""

    name: str
    what: str
    goal: str
    unit: str
    ours: Sequence[float]
    """By round."""
    meets: Callable[[float], bool] | None = None
    """Whether a value meets the goal, if there is one."""
    limit: float | None = None
    limit_is: str = ""
    """What the limit is, for people."""
    raw: dict[str, Any] = attrs.field(factory=dict)
    """All that was measured, for the JSON."""

    @property
    def median(self) -> float:
        """Over the rounds."""
        return statistics.median(self.ours)

    @property
    def ratio(self) -> float | None:
        """To the limit."""
        return None if self.limit is None else self.median / self.limit

    @property
    def met(self) -> bool | None:
        """Whether the median meets the goal; None without one."""
        return None if self.meets is None else math.isfinite(self.median) and self.meets(self.median)


@attrs.define
class Bench:
    """What the measurements are given."""

    stage: Stage
    rounds: int
    duration: float
    """Seconds of a sustained measurement."""
    quick: bool
    """For correctness only: every measurement as short as can be."""
    _doing: str = ""

    @property
    def window(self) -> float:
        """Seconds of the window in a sustained measurement: such that much of it has trimming."""
        return WINDOW if self.duration > WINDOW else max(SHORTEST_WINDOW, self.duration // 3)

    @property
    def warm_up(self) -> float:
        """Seconds of a load before it is measured."""
        return 0.2 if self.quick else 2.0

    def doing(self, what: str) -> None:
        """Name what is measured from now on."""
        self._doing = what

    def say(self, text: str) -> None:
        """Tell of the progress."""
        print(f"{time.strftime('%H:%M:%S')} {self._doing}: {text}", file=sys.stderr, flush=True)

    def wait(self, seconds: float) -> None:
        """Let the load go on for so long, with a count-down on a terminal."""
        end = time.monotonic() + seconds
        terminal = sys.stderr.isatty()
        while (left := end - time.monotonic()) > 0:
            if terminal:
                print(f"\r{self._doing}: {left:3.0f} s left ", end="", file=sys.stderr, flush=True)
            time.sleep(min(left, 1.0))
        if terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
