"""A run of the bench: what it may take, how it tells of its progress."""

from __future__ import annotations

import sys
import time

import attrs

from tests.bench.stage import Stage

WINDOW = 60.0
"""Seconds: the service's default."""
SHORTEST_WINDOW = 10.0
"""What waits for Redis at flood is some seconds old; past the window it would expire."""


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
