"""What faults have cost, as a table, and where that is more than was promised."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

import attrs

from tests.cluster.cluster_servers import NODE_TIMEOUT
from tests.cluster.trials import Cost


@attrs.frozen
class Promise:
    """The most that a kind of fault may cost. Times in seconds."""

    median: float = math.inf
    """Of the times until the takeover."""
    longest: float = math.inf
    """Of these."""
    moves: bool | None = None
    """Whether each exchange gets another owner; None: either way."""
    missing: float = math.inf
    pause: float = math.inf
    stale: float = math.inf


TAKEOVER = Promise(median=5.0, longest=7.0, moves=True)
PROMISES: Mapping[str, Promise] = {
    "owner killed": TAKEOVER,
    "owner stopped": TAKEOVER,
    "owner killed, standby": attrs.evolve(TAKEOVER, missing=0),
    "owner stopped, standby": attrs.evolve(TAKEOVER, missing=0),
    "master killed: its own": Promise(moves=False, missing=0, pause=NODE_TIMEOUT / 1_000 + 3),
    "master killed: the others": Promise(moves=False, missing=0, pause=0.5),
    "slot moved at once: its own": Promise(moves=False, missing=0, pause=0.5),
    "slot moved at once: the others": Promise(moves=False, missing=0, pause=0.5),
    "slot moved key by key: its own": Promise(moves=False, missing=0, pause=0.5),
    "slot moved key by key: the others": Promise(moves=False, missing=0, pause=0.5),
    "all restarted": Promise(missing=0, stale=1.0),
    "cut from redis: requests": Promise(moves=False, missing=0),
    "cut from redis: answers": Promise(moves=False, missing=0),
    "cut from redis: refused": Promise(moves=False, missing=0),
    "cut from postgres: requests": attrs.evolve(TAKEOVER, longest=8.0),
    "cut from postgres: answers": attrs.evolve(TAKEOVER, longest=8.0),
    "cut from postgres: refused": attrs.evolve(TAKEOVER, longest=8.0),
    "cut from postgres and redis: requests": TAKEOVER,
    "cut from postgres and redis: answers": TAKEOVER,
    "cut from postgres and redis: refused": TAKEOVER,
}
"""By row of the table."""


def broken(found: Mapping[str, Sequence[Cost]]) -> Iterator[str]:
    """Which promises were not kept."""
    for row, costs in found.items():
        promise = PROMISES.get(row, Promise())
        seconds = [cost.seconds for cost in costs if cost.moved] or [0.0]
        for what, value, most in (
            ("median", statistics.median(seconds), promise.median),
            ("longest", max(seconds), promise.longest),
            ("missing", max(cost.missing for cost in costs), promise.missing),
            ("pause", max(cost.pause for cost in costs), promise.pause),
            ("stale", max(cost.stale for cost in costs), promise.stale),
        ):
            if value > most:
                yield f"{row}: {what} {value:.2f}, promised {most:.2f}"
        if promise.moves is not None and any(cost.moved != promise.moves for cost in costs):
            yield f"{row}: {'not all have' if promise.moves else 'some have'} another owner"


def table(found: Mapping[str, Sequence[Cost]]) -> str:
    """A line for each kind of fault."""
    columns = ("moved", "min s", "median", "max s", "missing", "before s", "pause s", "stale s")
    lines = [f"{'fault':<42}" + "".join(f"{column:>9}" for column in columns)]
    for row, costs in found.items():
        moved = [cost.seconds for cost in costs if cost.moved]
        cells = [
            f"{len(moved)}/{len(costs)}",
            *([_of(min(moved)), _of(statistics.median(moved)), _of(max(moved))] if moved else ["-"] * 3),
            str(max(cost.missing for cost in costs)),
            *(_of(max(getattr(cost, name) for cost in costs)) for name in ("unsaved", "pause", "stale")),
        ]
        lines.append(f"{row:<42}" + "".join(f"{cell:>9}" for cell in cells))
    return "\n".join(lines)


def _of(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds else "-"
