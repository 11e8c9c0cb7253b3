"""The plan of faults. The seed determines it completely, before anything starts."""

from __future__ import annotations

import random
from collections.abc import Iterator

import attrs

EXCHANGES = ("exchange1", "exchange2", "exchange3")
KILL = "kill"
CRASHES = (*6 * (KILL,), "kill_postgres_frozen", "stop")
"""Faults that end the service. After the first part of a run it lives on, to measure growth."""
FAULTS = (
    "exchange_down",
    "exchange_reset",
    "exchange_flap",
    "exchange_garbage",
    "exchange_silent",
    "redis_freeze",
    "redis_kill",
    "redis_flush",
    "postgres_freeze",
    "postgres_terminate",
    "modes",
    "abusers",
)
CRASHING = 0.65
"""The part of the run in which the service is killed repeatedly: fifty times in ten minutes."""
CALM = (1.5, 3.5)
LENGTH = (0.5, 4.0)
CALM_BETWEEN_CRASHES = CRASH_LENGTH = (0.2, 1.0)
CALM_BEFORE_CRASH = (3.0, 4.0)
"""Seconds after another fault. An emptied Redis is restored within 2 s plus the time to write it; a kill
before that loses data that only the service's memory had (docs/reliability.md).
"""
RESTART = 3.0
"""The approximate time (s) of a restart, for the length of the plan."""


@attrs.frozen
class Fault:
    """One fault."""

    calm: float
    """Seconds before it."""
    kind: str
    length: float
    """Seconds that it lasts."""
    exchange: str
    """The exchange that it affects, if it affects one."""

    def __str__(self) -> str:
        whom = f" {self.exchange}" if self.kind.startswith("exchange_") else ""
        return f"{self.calm:.2f} s of calm, {self.kind}{whom} for {self.length:.2f} s"


def plan(seed: int, duration: float) -> list[Fault]:
    """Faults for so many seconds. Each kind occurs once before any occurs a second time."""
    rng = random.Random(seed)
    crashes, others = _in_turn(rng, CRASHES), _in_turn(rng, FAULTS)
    faults: list[Fault] = []
    at = 0.0
    while at < duration:
        crashing = at < CRASHING * duration and len(faults) % 5 != 4
        kind = next(crashes if crashing else others)
        after_crash = bool(faults) and faults[-1].kind in CRASHES
        calm, length = CALM, LENGTH
        if crashing:
            calm, length = CALM_BETWEEN_CRASHES if after_crash else CALM_BEFORE_CRASH, CRASH_LENGTH
        fault = Fault(rng.uniform(*calm), kind, rng.uniform(*length), rng.choice(EXCHANGES))
        at += fault.calm + fault.length + (RESTART if crashing else 0)
        faults.append(fault)
    return faults


def _in_turn(rng: random.Random, kinds: tuple[str, ...]) -> Iterator[str]:
    while True:
        yield from rng.sample(kinds, len(kinds))
