"""The cost of the service when few updates or none come in: its wake-ups cost more than the updates then."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from tests.bench.bench import Bench
from tests.bench.latency import P50_GOAL_LITTLE, probed
from tests.bench.processes import exact_cpu_seconds, wake_ups
from tests.bench.rows import Row, percentile
from tests.bench.stage import BenchError, Service, lost_of

IDLE, PROVIDED, LITTLE = 0.0, 150.0, 1_000.0
"""Updates a second. The provided exchanges send 150: each a line of each symbol every 100 ms."""
PER_UPDATE_GOAL = 55.0
"""Microseconds at 1,000 updates a second."""
BUSY_GOALS = {IDLE: 0.5, PROVIDED: 1.5}
"""Percent of a core."""


@attrs.frozen
class Cost:
    """One measurement at one rate."""

    rate: float
    busy: float
    """Percent of a core."""
    per_update: float
    """Microseconds; 0 where nothing came in."""
    wake_ups: float
    """Of its main thread, a second."""


def little(bench: Bench) -> list[Row]:
    """Rows at each rate: the part of a core, the wake-ups, the time for each update, and the latency."""
    costs: list[Cost] = []
    latencies: list[float] = []
    seconds = 1.0 if bench.quick else 10.0
    for number in range(bench.rounds):
        with bench.stage.service() as service:
            for rate in (IDLE, PROVIDED, LITTLE):
                if rate == PROVIDED:
                    service.exchanges.pace()
                else:
                    service.exchanges.send(rate)
                bench.wait(bench.warm_up)
                costs.append(_measured(bench, service, rate, seconds))
                bench.say(f"round {number + 1} of {bench.rounds}: {_told(costs[-1])}")
            # The probes come on top, so nothing else is measured meanwhile.
            latencies.append(percentile(probed(bench, service, seconds), 50))
            bench.say(f"receipt to Redis p50 {latencies[-1]:.1f} ms")
            ledger = service.drained(service.exchanges.finish())
            if lost_of(ledger):
                raise BenchError(f"updates were lost: {ledger}")
    return _rows(costs, latencies)


def _measured(bench: Bench, service: Service, rate: float, seconds: float) -> Cost:
    before, cpu, woken = service.ledger(), exact_cpu_seconds(service.pid), wake_ups(service.pid)
    began = service.cpu().at
    bench.wait(seconds)
    used, woken = exact_cpu_seconds(service.pid) - cpu, wake_ups(service.pid) - woken
    took = service.cpu().at - began
    updates: int = service.ledger()["cached"] - before["cached"]
    if rate and not updates:
        raise BenchError(f"nothing came to Redis within {seconds:g} s")
    return Cost(rate, 100 * used / took, used / updates * 1e6 if updates else 0.0, woken / took)


def _told(cost: Cost) -> str:
    each = f", {cost.per_update:.1f} us an update" if cost.per_update else ""
    return f"{cost.rate:,.0f}/s: {cost.busy:.2f} % of a core, {cost.wake_ups:.0f} wake-ups a second{each}"


def _rows(costs: Sequence[Cost], latencies: Sequence[float]) -> list[Row]:
    rows = []
    for rate in (IDLE, PROVIDED, LITTLE):
        of_rate = [cost for cost in costs if cost.rate == rate]
        name, what = f"little.{rate:.0f}", f"{rate:,.0f} updates/s" if rate else "nothing comes in"
        goal = BUSY_GOALS.get(rate)
        rows += [
            Row(
                name=f"{name}.busy",
                what=f"{what}: the service's part of a core",
                goal=f"<= {goal} %" if goal else "",
                unit="%",
                rounds=[cost.busy for cost in of_rate],
                at_most=goal,
            ),
            Row(
                name=f"{name}.wake_ups",
                what=f"{what}: wake-ups of its main thread",
                unit="/s",
                rounds=[cost.wake_ups for cost in of_rate],
            ),
        ]
    rows += [
        Row(
            name="little.per_update",
            what=f"{LITTLE:,.0f} updates/s in steps of 10 ms: CPU for each update",
            goal=f"<= {PER_UPDATE_GOAL:g} us",
            unit="us",
            rounds=[cost.per_update for cost in costs if cost.rate == LITTLE],
            at_most=PER_UPDATE_GOAL,
        ),
        Row(
            name="little.p50",
            what=f"receipt to Redis at {LITTLE:,.0f} updates/s, p50",
            goal=f"<= {P50_GOAL_LITTLE} ms",
            unit="ms",
            rounds=latencies,
            at_most=P50_GOAL_LITTLE,
        ),
    ]
    return rows
