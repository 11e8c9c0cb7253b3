"""The ports for time and randomness. A test, or the simulation, fills them with its own."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """The wall clock."""

    def now(self) -> int:
        """The time in Unix ms, UTC. It may step."""
        ...


class Entropy(Protocol):
    """The source of all randomness: ids of boots, jitter, generated prices. `random.Random` implements it.

    With a seed, a run can be repeated: see docs/determinism.md.
    """

    def random(self) -> float:
        """A number in [0, 1)."""
        ...

    def uniform(self, a: float, b: float) -> float:
        """A number between `a` and `b`."""
        ...

    def getrandbits(self, k: int, /) -> int:
        """An integer of `k` random bits."""
        ...
