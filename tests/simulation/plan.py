"""What a seed decides before anything runs: the settings, and when which fault happens.

A plan is data. So a failing one can be shrunk: faults are left out as long as it still fails. Traffic and the
order of tasks come from generators of their own, which do not depend on the faults that are left.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

import attrs

from marketflow.config import Settings
from marketflow.config.settings import ExchangeSettings

SYMBOLS: Final = ("BTCUSDT", "DOGEUSDT", "ETHUSDT")
LIVE: Final = ("exchange1", "exchange2")
TEST: Final = ("test1",)

KINDS: Final = {
    # Kind: how often it is drawn, and how long (seconds) it lasts; 0: it is over at once.
    "redis refuses": (3, 8.0),
    "redis hangs": (3, 6.0),
    "redis loses replies": (3, 3.0),
    "redis applies half": (3, 3.0),
    "redis slow": (1, 6.0),
    "redis emptied": (3, 0.0),
    "redis restarted empty": (2, 3.0),
    "redis older": (2, 0.0),
    "postgres refuses": (3, 10.0),
    "postgres hangs": (3, 8.0),
    "postgres loses replies": (2, 4.0),
    "postgres refuses rows": (2, 8.0),
    "postgres breaks connections": (2, 0.0),
    "postgres older": (2, 0.0),
    "exchange down": (2, 5.0),
    "exchange breaks": (3, 0.0),
    "exchange closes": (2, 0.0),
    "exchange mute": (1, 10.0),
    "exchange mad": (1, 5.0),
    "exchange ahead": (1, 6.0),
    "exchange bursts": (2, 3.0),
    "clock ahead": (2, 8.0),
    "clock behind": (1, 8.0),
    "mode switched": (4, 0.0),
    "killed": (4, 0.0),
    "stopped": (3, 0.0),
    "frozen": (2, 8.0),
    "cut off": (2, 8.0),
    "second service": (1, 12.0),
    "second service, first frozen": (1, 15.0),
    "second service, first killed": (1, 12.0),
    "second service, first cut off": (1, 15.0),
    "both stores away": (2, 6.0),
}


@attrs.frozen(order=True)
class Fault:
    """Something that goes wrong, or is done, at a time."""

    at: float
    """Seconds from the beginning."""
    kind: str
    lasts: float
    """Seconds."""
    detail: int
    """Whatever else the kind needs to know is taken from this number."""

    def __str__(self) -> str:
        lasting = f" for {self.lasts:.1f} s" if self.lasts else ""
        return f"{self.at:6.2f} s  {self.kind}{lasting}  ({self.detail})"


@attrs.frozen
class Plan:
    """All of a history but its traffic and the order of tasks."""

    seed: int
    seconds: float
    """How long faults happen; then there is calm."""
    tick: float
    """Seconds between two sends of an exchange, about."""
    symbols: Sequence[str]
    interval: int
    """Of the aggregates (ms)."""
    grace: int
    lateness: int
    window_length: int
    flush_interval: int
    max_pending: int
    replay_memory: int
    retention: int | None
    """ms"""
    mode: str
    faults: tuple[Fault, ...]

    @classmethod
    def of(cls, seed: int) -> Plan:
        """The plan of a seed."""
        rng = random.Random(f"plan {seed}")
        seconds = rng.choice((8.0, 15.0, 25.0))
        kinds = list(KINDS)
        weights = [KINDS[kind][0] for kind in kinds]
        if rng.random() < 0.5:
            # Few kinds, again and again: so rare ones meet each other.
            chosen = sorted(set(rng.choices(range(len(kinds)), weights, k=5)))
            kinds, weights = [kinds[i] for i in chosen], [weights[i] for i in chosen]
        faults: list[Fault] = []
        for _ in range(rng.choice((0, 1, 2, 3, 4, 6, 9, 12))):
            (kind,) = rng.choices(kinds, weights)
            faults.append(_fault(rng, kind, seconds, faults))
        return cls(
            seed=seed,
            seconds=seconds,
            tick=rng.choice((0.1, 0.3, 1.0)),
            symbols=SYMBOLS[: rng.randint(1, 3)],
            interval=rng.choice((2_000, 5_000)),
            grace=rng.choice((200, 1_000)),
            lateness=rng.choice((3_000, 8_000, 20_000)),
            window_length=rng.choice((4_000, 10_000, 60_000)),
            flush_interval=rng.choice((50, 200, 400)),
            max_pending=rng.choice((60, 1_000_000, 1_000_000)),
            replay_memory=rng.choice((64 * 2**20, 64 * 2**20, 2_000)),
            retention=rng.choice((None, None, 20_000)),
            mode=rng.choice(("live", "live", "test")),
            faults=tuple(sorted(faults)),
        )


def _fault(rng: random.Random, kind: str, seconds: float, before: Sequence[Fault]) -> Fault:
    """A fault of that kind, within so many seconds: at any time, while another lasts, or at the beginning."""
    lasts = round(KINDS[kind][1] * rng.uniform(0.1, 1.0), 3)
    at, when = rng.uniform(0, seconds), rng.random()
    if before and when < 0.5:
        other = rng.choice(before)
        at = min(max(0.0, other.at + rng.uniform(-0.5, other.lasts + 0.5)), seconds)
    elif kind.startswith("clock") and when > 0.7:
        at = 0.0
    return Fault(round(at, 3), kind, lasts, rng.randrange(1_000_000))


def settings_of(plan: Plan) -> Settings:
    """The settings of a plan."""
    settings = Settings()
    return attrs.evolve(
        settings,
        mode=plan.mode,
        symbols=tuple(plan.symbols),
        exchanges=tuple(ExchangeSettings(name, "127.0.0.1", 1) for name in LIVE),
        generator=attrs.evolve(settings.generator, exchanges=TEST),
        pipeline=attrs.evolve(
            settings.pipeline, flush_interval=plan.flush_interval, max_pending_updates=plan.max_pending
        ),
        window=attrs.evolve(settings.window, length=plan.window_length, replay_memory=plan.replay_memory),
        aggregation=attrs.evolve(
            settings.aggregation,
            interval=plan.interval,
            grace=plan.grace,
            lateness=plan.lateness,
            retention=plan.retention,
        ),
    )
