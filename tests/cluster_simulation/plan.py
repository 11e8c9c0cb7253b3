"""What a seed decides before anything runs: the cluster, and when which fault happens."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

import attrs

from marketflow.domain.modes import Mode
from tests.simulation.plan import Fault

EXCHANGES: Final = ("exchange1", "exchange2", "exchange3")
"""Those of live mode."""
SHARED: Final = ("exchange1", "exchange2")
"""Exchanges that are configured as shared: all connections to them carry the same updates."""
MODES: Final[dict[str, Mode]] = dict.fromkeys(EXCHANGES, "live") | {"test1": "test", "test2": "test"}
"""All exchanges, each with its mode."""
SYMBOLS: Final = ("BTCUSDT", "ETHUSDT")

KINDS: Final = {
    "node killed": (4, 0.0),
    "node stopped": (3, 0.0),
    "node frozen": (4, 14.0),
    "node doubled": (2, 0.0),
    "mode switched": (3, 0.0),
    "network down": (3, 12.0),
    "network loses requests": (2, 12.0),
    "network loses answers": (2, 12.0),
    "postgres refuses": (2, 15.0),
    "postgres hangs": (2, 10.0),
    "postgres loses replies": (1, 5.0),
    "postgres older": (1, 0.0),
    "postgres steps": (2, 0.0),
    "shard refuses": (2, 8.0),
    "shard hangs": (2, 8.0),
    "shard loses replies": (2, 4.0),
    "shard emptied": (1, 0.0),
    "shard older": (2, 0.0),
    "exchange breaks": (2, 0.0),
    "exchange down": (1, 4.0),
}
"""Kinds of faults: how often each is drawn, and how many seconds it lasts at most."""


@attrs.frozen
class Plan:
    """All of a history but its traffic and the order of tasks."""

    seed: int
    seconds: float
    """How long faults happen; then there is calm."""
    nodes: int
    tick: float
    """Seconds between two sends of an exchange, about."""
    interval: int
    """Of the aggregates (ms)."""
    grace: int
    lateness: int
    window_length: int
    faults: tuple[Fault, ...]
    standby: bool = False

    @classmethod
    def of(cls, seed: int) -> Plan:
        """The plan of a seed."""
        rng = random.Random(f"cluster plan {seed}")
        seconds = rng.choice((15.0, 30.0, 45.0))
        kinds = list(KINDS)
        if rng.random() < 0.5:
            # Few kinds, again and again: so rare ones meet each other.
            kinds = sorted(set(rng.choices(kinds, [KINDS[kind][0] for kind in kinds], k=4)))
        faults = [
            _fault(rng, rng.choices(kinds, [KINDS[kind][0] for kind in kinds])[0], seconds)
            for _ in range(rng.choice((0, 1, 2, 3, 5, 8)))
        ]
        return cls(
            seed=seed,
            seconds=seconds,
            nodes=rng.choice((2, 2, 3)),
            tick=rng.choice((0.1, 0.3)),
            interval=rng.choice((2_000, 5_000)),
            grace=rng.choice((200, 1_000)),
            lateness=rng.choice((8_000, 20_000)),
            window_length=rng.choice((10_000, 60_000)),
            faults=_beside(rng, faults),
            standby=rng.random() < 0.5,
        )


def _fault(rng: random.Random, kind: str, seconds: float) -> Fault:
    lasts = round(KINDS[kind][1] * rng.uniform(0.1, 1.0), 3)
    return Fault(round(rng.uniform(0, seconds), 3), kind, lasts, rng.randrange(1_000_000))


def _beside(rng: random.Random, faults: Sequence[Fault]) -> tuple[Fault, ...]:
    """Half of them are moved so that each happens during another, or just after it."""
    found = list(faults)
    for place, fault in enumerate(faults):
        if len(faults) > 1 and rng.random() < 0.5:
            other = rng.choice(faults)
            at = max(0.0, other.at + rng.uniform(-0.5, other.lasts + 4.0))
            found[place] = attrs.evolve(fault, at=round(at, 3))
    return tuple(sorted(found))
