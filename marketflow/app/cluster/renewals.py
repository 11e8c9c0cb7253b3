"""For how long leases and heartbeats have not been renewed, by this node's own clock.

The database says when a lease ends and how old a heartbeat is, by its own clock. That clock may step, or be
another one after a failover. A step forward would end leases whose owners are well. After a step back those
of dead owners would be good for as long as the step. So a node notes what changes, and measures with its own
clock for how long it has not.
"""

from __future__ import annotations

from typing import Final

ROUNDING: Final = 50
"""Ms. A time that has moved by less was not renewed: it is computed from rounded numbers."""


class Renewals:
    """By name, the last renewal that was seen. Times without a unit are seconds of this node's clock."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[object, int, float]] = {}
        """By name: whose it is, the database's time (ms) that a renewal moves, and since when that is so."""

    def look(self, renewed: dict[str, tuple[object, int]], now: float) -> None:
        """Note what a look has found: by name, whose it is, and a time (ms) that each renewal moves."""
        seen = {}
        for name, (whose, time) in renewed.items():
            before = self._seen.get(name)
            unchanged = before is not None and before[0] == whose and abs(before[1] - time) < ROUNDING
            seen[name] = before if unchanged and before is not None else (whose, time, now)
        self._seen = seen

    def idle(self, name: str, now: float) -> float:
        """For how long it has not been renewed. Before the first look nothing is known: as if just now."""
        return now - self._seen[name][2] if name in self._seen else 0.0
