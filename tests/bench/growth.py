"""Measures how the cost of an update grows with the rate, the symbols and the exchanges."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

import attrs

from tests.bench.bench import Bench
from tests.bench.rows import Row
from tests.bench.stage import BenchError, Service, lost_of

FACTOR = 1.5
"""The factor by which the cost may differ."""


@attrs.frozen
class Load:
    """A load on the service."""

    exchanges: int
    symbols: int
    rate: float | None
    """Updates a second; None: as many as are read."""

    @property
    def name(self) -> str:
        """A name for programs."""
        return f"{self.exchanges}x{self.symbols}.{'flood' if self.rate is None else f'{self.rate:.0f}'}"

    def __str__(self) -> str:
        rate = "flood" if self.rate is None else f"{self.rate:,.0f}/s"
        return f"{self.exchanges} exchanges, {self.symbols} symbols, {rate}"


FLOOD = Load(3, 5, None)
AT_100K = Load(3, 5, 100_000.0)


def growth(bench: Bench) -> list[Row]:
    """A row for each load, with the load that it is compared with."""
    symbols, exchanges = (20, 6) if bench.quick else (100, 20)
    # The loads of a group run one after another on one service; each group has a new service.
    services = (
        (Load(3, 5, 1_000.0), Load(3, 5, 10_000.0), AT_100K, FLOOD),
        (Load(3, symbols, AT_100K.rate), Load(3, symbols, FLOOD.rate)),
        (Load(exchanges, 5, AT_100K.rate), Load(exchanges, 5, FLOOD.rate)),
    )
    costs: dict[Load, list[float]] = {load: [] for loads in services for load in loads}
    for number in range(bench.rounds):
        for loads in services:
            for load, cost in _costs(bench, loads):
                costs[load].append(cost)
                bench.say(f"round {number + 1} of {bench.rounds}, {load}: {cost:.2f} us an update")
    return [
        _row(load, costs[load], origin, statistics.median(costs[origin]))
        for load in costs
        if load != (origin := AT_100K if load.rate == AT_100K.rate and load != AT_100K else FLOOD)
    ]


def _row(load: Load, costs: list[float], origin: Load, limit: float) -> Row:
    return Row(
        name=f"growth.{load.name}",
        what=f"CPU for each update: {load}",
        goal=f"<= {FACTOR} x",
        unit="us",
        rounds=costs,
        limit=limit,
        limit_is=str(origin),
        at_most=FACTOR * limit,
    )


def _costs(bench: Bench, loads: Sequence[Load]) -> Iterator[tuple[Load, float]]:
    """Microseconds of the service's processor time for each update."""
    seconds = 0.5 if bench.quick else 5.0
    with bench.stage.service(exchanges=loads[0].exchanges, symbols_count=loads[0].symbols) as service:
        for load in loads:
            service.exchanges.send(load.rate)
            bench.wait(bench.warm_up)
            yield load, _measured(bench, service, seconds)
            ledger = service.drained(service.exchanges.finish())
            if lost_of(ledger):
                raise BenchError(f"updates were lost: {ledger}")


def _measured(bench: Bench, service: Service, seconds: float) -> float:
    before, cpu = service.ledger(), service.cpu()
    bench.wait(seconds)
    used, after = service.cpu() - cpu, service.ledger()
    updates: int = after["cached"] - before["cached"]
    if not updates:
        raise BenchError(f"nothing came to Redis within {seconds:g} s")
    return used.service / updates * 1e6
