"""A run of the bench: its options, and its progress messages."""

from __future__ import annotations

import sys
import time

import attrs

from tests.bench.stage import Stage

WINDOW = 60.0
"""The service's default, in seconds."""
SHORTEST_WINDOW = 10.0
"""At flood, updates wait for Redis for some seconds; with a shorter window they would expire."""


@attrs.define
class Bench:
    """The context of all measurements."""

    stage: Stage
    rounds: int
    duration: float
    """Seconds of a sustained measurement."""
    quick: bool
    """Whether to make every measurement as short as possible, to test only that it works."""
    _doing: str = ""

    @property
    def window(self) -> float:
        """Seconds of the window in a sustained measurement, so short that most of it includes trimming."""
        return WINDOW if self.duration > WINDOW else max(SHORTEST_WINDOW, self.duration // 3)

    @property
    def warm_up(self) -> float:
        """Seconds of a load before it is measured."""
        return 0.2 if self.quick else 2.0

    def doing(self, what: str) -> None:
        """Set the name of the current measurement."""
        self._doing = what

    def say(self, text: str) -> None:
        """Print a progress message."""
        print(f"{time.strftime('%H:%M:%S')} {self._doing}: {text}", file=sys.stderr, flush=True)

    def wait(self, seconds: float) -> None:
        """Wait while the load goes on, with a countdown on a terminal."""
        end = time.monotonic() + seconds
        terminal = sys.stderr.isatty()
        while (left := end - time.monotonic()) > 0:
            if terminal:
                print(f"\r{self._doing}: {left:3.0f} s left ", end="", file=sys.stderr, flush=True)
            time.sleep(min(left, 1.0))
        if terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
