"""Measures the service with many pairs, each with one update a second, and compares it with a few pairs.

Both have as many updates a second, so what differs is due to the pairs. Measured one after another, since
each would show in the others: processor time, the time from receipt to Redis, and /prices/latest of all
pairs. Then an interval of the aggregates ends that has updates in each of its seconds, and its rows are
written. The time runs from the end of its grace until PostgreSQL shows all rows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence

import attrs
import psycopg

from marketflow.domain.periods import MINUTE, SECOND, ceil_to, floor_to
from tests.bench.asker import Answers, ask
from tests.bench.bench import Bench
from tests.bench.closing import GRACE, PAUSE_GOAL
from tests.bench.growth import FACTOR
from tests.bench.holdups import asking, longest
from tests.bench.latency import P50_GOAL_LITTLE, P99_GOAL, probed
from tests.bench.processes import exact_cpu_seconds
from tests.bench.rows import Row, percentile
from tests.bench.sender import PROBE
from tests.bench.stage import BenchError, Service, lost_of, wait_until

QUICK_INTERVAL = 6 * SECOND
"""The setting aggregation.interval of a quick run, which cannot wait for the end of a minute."""
LATEST_P50_GOAL, LATEST_P99_GOAL = 25, 50
"""In ms."""
CLOSE_GOAL = 750
"""In ms: 1,000 keys have 500."""
SPARE = 5.0
"""Seconds between the other measurements and the end of an interval, at least."""
UNSENT = 2
"""How many updates fewer than seconds an interval may have: the first and the last may be in the next."""

COUNT_ROWS = """
    SELECT count(*) FROM price_aggregates
    WHERE "timestamp" = to_timestamp(%s) AND update_count >= %s AND pair_name <> %s
"""


@attrs.frozen
class Load:
    """Exchanges and symbols."""

    exchanges: int
    symbols: int

    @property
    def pairs(self) -> int:
        """How many pairs."""
        return self.exchanges * self.symbols

    def __str__(self) -> str:
        return f"{self.exchanges} x {self.symbols} pairs"


FEW, MANY, QUICK_MANY = Load(3, 5), Load(3, 500), Load(3, 20)


@attrs.frozen
class Seconds:
    """How long each part is measured."""

    cpu: float
    probes: float
    latest: float

    @property
    def all(self) -> float:
        """All parts, and what comes between them."""
        return self.cpu + self.probes + self.latest + SPARE


LONG, QUICK = Seconds(15.0, 10.0, 10.0), Seconds(1.0, 1.0, 0.5)


@attrs.frozen
class Pace:
    """The result of one round without the end of an interval."""

    cpu: float
    """Microseconds of the service for each update."""
    p50: float
    """From receipt to Redis in ms."""
    p99: float
    latest: Answers

    def __str__(self) -> str:
        return (
            f"{self.cpu:.1f} us an update, receipt to Redis p50 {self.p50:.1f}, p99 {self.p99:.1f} ms, "
            f"latest p50 {self.latest.p50:.1f}, p99 {self.latest.p99:.1f} ms"
        )


@attrs.frozen
class Close:
    """The end of an interval."""

    took: float
    """Milliseconds until all rows were there."""
    cpu: float
    """Milliseconds of the service's processor time meanwhile."""
    hold_up: float
    """The longest time (ms) of an answer from /health/live meanwhile."""
    hold_up_quiet: float
    """The same for an equal time without a close."""

    def __str__(self) -> str:
        return (
            f"closed in {self.took:.0f} ms with {self.cpu:.0f} ms CPU, longest hold-up {self.hold_up:.1f} "
            f"(without a close {self.hold_up_quiet:.1f}) ms"
        )


def pairs(bench: Bench) -> list[Row]:
    """The rows of many pairs, each compared with few pairs."""
    many = QUICK_MANY if bench.quick else MANY
    fews: list[Pace] = []
    manys: list[Pace] = []
    closes: list[Close] = []
    for number in range(bench.rounds):
        told = f"round {number + 1} of {bench.rounds}"
        fews.append(_few(bench, many.pairs))
        bench.say(f"{told}, {FEW}: {fews[-1]}")
        pace, close = _many(bench, many)
        manys.append(pace)
        closes.append(close)
        bench.say(f"{told}, {many}: {pace}; {close}")
    return [*_pace_rows(many, manys, fews), *_close_rows(many, closes)]


# ---- measuring ----


def _few(bench: Bench, rate: float) -> Pace:
    with bench.stage.service(exchanges=FEW.exchanges, symbols_count=FEW.symbols) as service:
        service.exchanges.send(rate)
        bench.wait(bench.warm_up)
        pace = _pace(bench, service, FEW)
        _end(service)
    return pace


def _many(bench: Bench, load: Load) -> tuple[Pace, Close]:
    interval = QUICK_INTERVAL if bench.quick else MINUTE
    settings = {"AGGREGATION__INTERVAL": f"{interval // SECOND}s"}
    with bench.stage.service(
        exchanges=load.exchanges, symbols_count=load.symbols, settings=settings
    ) as service:
        # What the open interval has lacked until now.
        service.exchanges.send_each(range(floor_to(_now(), interval), floor_to(_now(), SECOND), SECOND))
        service.exchanges.send(load.pairs)
        bench.wait(bench.warm_up)
        wait_until(lambda: not service.ledger()["pending"], "the first updates are in Redis")
        left = (ceil_to(_now(), interval) - _now()) / SECOND
        if left < _seconds(bench).all:
            close = _close(bench, service, load, interval)
            pace = _pace(bench, service, load)
        else:
            pace = _pace(bench, service, load)
            close = _close(bench, service, load, interval)
        _end(service)
    return pace, close


def _end(service: Service) -> None:
    ledger = service.drained(service.exchanges.finish())
    if lost_of(ledger):
        raise BenchError(f"updates were lost: {ledger}")


def _seconds(bench: Bench) -> Seconds:
    return QUICK if bench.quick else LONG


def _pace(bench: Bench, service: Service, load: Load) -> Pace:
    seconds = _seconds(bench)
    before, cpu = service.ledger(), exact_cpu_seconds(service.pid)
    bench.wait(seconds.cpu)
    cpu = exact_cpu_seconds(service.pid) - cpu
    updates: int = service.ledger()["cached"] - before["cached"]
    if not updates:
        raise BenchError(f"nothing came to Redis within {seconds.cpu:g} s")
    took = probed(bench, service, seconds.probes)
    latest = ask(service.port, "/prices/latest", connections=1, seconds=seconds.latest)
    if latest.failed or len(json.loads(latest.sample)["prices"]) < load.pairs:
        raise BenchError(f"not every answer has {load.pairs} prices: {latest}")
    return Pace(cpu / updates * 1e6, percentile(took, 50), percentile(took, 99), latest)


def _close(bench: Bench, service: Service, load: Load, interval: int) -> Close:
    end = ceil_to(_now(), interval)
    with psycopg.connect(service.dsn, autocommit=True) as connection, asking(service.port) as samples:

        def there() -> bool:
            wanted = (end // SECOND, interval // SECOND - UNSENT, PROBE)
            found = connection.execute(COUNT_ROWS, wanted).fetchone()
            return found is not None and int(found[0]) == load.pairs

        bench.wait((end + GRACE - _now()) / SECOND)
        began, cpu = time.monotonic(), exact_cpu_seconds(service.pid)
        wait_until(there, f"all rows of {load}", every=CLOSE_GOAL / 50 / SECOND)
        ended, cpu = time.monotonic(), exact_cpu_seconds(service.pid) - cpu
        time.sleep(0.1 + ended - began)
        quiet = ended + 0.1
    return Close(
        took=(ended - began) * 1_000,
        cpu=cpu * 1_000,
        hold_up=longest(samples, began, ended),
        hold_up_quiet=longest(samples, quiet, quiet + ended - began),
    )


def _now() -> int:
    return time.time_ns() // 1_000_000


# ---- rows ----


def _pace_rows(many: Load, manys: Sequence[Pace], fews: Sequence[Pace]) -> list[Row]:
    what = f"{many}, one update a second each"
    latest = f"`/prices/latest` of {many}"
    cpu_limit = min(few.cpu for few in fews)
    values: tuple[tuple[str, str, str, float, Callable[[Pace], float]], ...] = (
        ("cpu", f"{what}: CPU for each", "us", FACTOR * cpu_limit, lambda pace: pace.cpu),
        ("p50", "receipt to Redis meanwhile, p50", "ms", P50_GOAL_LITTLE, lambda pace: pace.p50),
        ("p99", "receipt to Redis meanwhile, p99", "ms", P99_GOAL, lambda pace: pace.p99),
        ("latest.p50", f"{latest}, p50, one client", "ms", LATEST_P50_GOAL, lambda pace: pace.latest.p50),
        ("latest.p99", f"{latest}, p99, one client", "ms", LATEST_P99_GOAL, lambda pace: pace.latest.p99),
    )
    return [
        Row(
            name=f"pairs.{name}",
            what=text,
            goal=f"<= {FACTOR} x" if name == "cpu" else f"<= {most:g} {unit}",
            unit=unit,
            rounds=[value(pace) for pace in manys],
            limit=min(value(pace) for pace in fews),
            limit_is=f"{FEW}, best",
            at_most=most,
            raw={"rounds": [attrs.asdict(pace.latest) for pace in manys]},
        )
        for name, text, unit, most, value in values
    ]


def _close_rows(many: Load, closes: Sequence[Close]) -> list[Row]:
    raw = {"rounds": [attrs.asdict(close) for close in closes]}
    return [
        Row(
            name="pairs.close",
            what=f"closing an interval of {many}, one update a second each",
            goal=f"<= {CLOSE_GOAL} ms",
            unit="ms",
            rounds=[close.took for close in closes],
            at_most=CLOSE_GOAL,
            raw=raw,
        ),
        Row(
            name="pairs.hold_up",
            what="longest answer of `/health/live` meanwhile",
            goal=f"<= {PAUSE_GOAL} ms",
            unit="ms",
            rounds=[close.hold_up for close in closes],
            limit=max(close.hold_up_quiet for close in closes),
            limit_is="without a close, longest",
            at_most=PAUSE_GOAL,
        ),
    ]
