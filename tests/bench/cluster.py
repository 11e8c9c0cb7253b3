"""What a cluster costs: a node beside a single service, shares beside one share, a mirror beside an owner.

Each measurement is made of both in turn, with the same load, so that they share the state of the machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus

import attrs

from tests.bench.asker import Answers, ask
from tests.bench.behind import Behind, behind
from tests.bench.bench import Bench
from tests.bench.processes import exact_cpu_seconds
from tests.bench.rows import Row
from tests.bench.stage import BenchError, Service, lost_of, wait_until

NODE: Mapping[str, object] = {"CLUSTER__ENABLED": "true", "CLUSTER__NODE": "owner"}
API: Mapping[str, object] = {"CLUSTER__NODE": "api", "CLUSTER__ROLE": "api"}
SUSTAINED_GOAL, ANSWERS_GOAL = 0.85, 0.9
"""Of what a single service does."""
SHARES_GOAL = 1.5
"""Times the processor time of one share."""
BEHIND_GOAL = 50
"""Milliseconds."""
SHARES = 20
LITTLE, MUCH = 1_000.0, 100_000.0
"""Updates a second."""
CLIENTS = 8
FLOOD_SECONDS = 20.0


@attrs.define
class Sides:
    """One measured value, round by round, in a cluster and of a single service."""

    cluster: list[float] = attrs.field(factory=list)
    single: list[float] = attrs.field(factory=list)

    def row(self, name: str, what: str, unit: str, *, least: float = 0.0, most: float = 0.0) -> Row:
        """The row of the cluster. The goal, if there is one, is a multiple of the single service's median."""
        limit = statistics.median(self.single)
        return Row(
            name=f"cluster.{name}",
            what=what,
            goal=f">= {least:g} x" if least else f"<= {most:g} x" if most else "",
            unit=unit,
            rounds=self.cluster,
            limit=limit,
            limit_is="a single service",
            at_least=least * limit if least else None,
            at_most=most * limit if most else None,
            raw={"single": self.single},
        )


@attrs.frozen
class Load:
    """What the exchanges send."""

    exchanges: int
    rate: float | None
    """Updates a second of all together; None: as many as are read."""

    def __str__(self) -> str:
        rate = "flood" if self.rate is None else f"{self.rate:,.0f}/s"
        return f"{self.exchanges} exchanges, {rate}"


@attrs.frozen
class Done:
    """What a service did with it."""

    rate: float
    """Updates a second that Redis acknowledged."""
    cpu_us: float
    """Processor time of the service for each of them."""


def cluster(bench: Bench) -> list[Row]:
    """All rows: the cost of updates, then the answers of a node that only answers."""
    shares = 6 if bench.quick else SHARES
    flood, little = Load(1, None), Load(1, LITTLE)
    many = (Load(shares, LITTLE), Load(shares, MUCH))
    rates, costs = Sides(), {load: Sides() for load in (flood, little, *many)}
    for number in range(bench.rounds):
        bench.say(f"round {number + 1} of {bench.rounds}")
        for loads in ((little, flood), many):
            # The one that comes first may find the machine in another state.
            for in_cluster in (True, False) if number % 2 else (False, True):
                for load, done in _loaded(bench, loads, NODE if in_cluster else {}):
                    side = "cluster" if in_cluster else "single"
                    getattr(costs[load], side).append(done.cpu_us)
                    if load == flood:
                        getattr(rates, side).append(done.rate)
                    bench.say(f"{side}, {load}: {done.rate:,.0f}/s, {done.cpu_us:.2f} us an update")
    each = "CPU for each update"
    return [
        rates.row(
            "sustained",
            "a node with one exchange, sustained at flood",
            "updates/s",
            least=SUSTAINED_GOAL,
        ),
        costs[flood].row("cpu", f"the same, {each}", "us"),
        costs[little].row("little", f"a node with one exchange, {LITTLE:,.0f} updates/s: {each}", "us"),
        *(
            costs[load].row(
                f"shares.{load.rate:.0f}",
                f"a node with {shares} exchanges, {load.rate:,.0f} updates/s: {each}",
                "us",
                most=SHARES_GOAL,
            )
            for load in many
        ),
        *_answers(bench),
    ]


def _loaded(
    bench: Bench, loads: Sequence[Load], settings: Mapping[str, object]
) -> Iterator[tuple[Load, Done]]:
    """The results of these loads, one after another on one service."""
    window = {"WINDOW__LENGTH": bench.window}
    with bench.stage.service(exchanges=loads[0].exchanges, settings={**window, **settings}) as service:
        if settings:
            _wait_for_all(service)
        for load in loads:
            service.exchanges.send(load.rate)
            bench.wait(bench.warm_up)
            seconds = 1.0 if bench.quick else FLOOD_SECONDS if load.rate is None else 5.0
            yield load, _measured(bench, service, seconds)
            _check(service)


def _wait_for_all(service: Service) -> None:
    """Wait until the node has all exchanges, and has read what Redis holds of each."""

    def whole() -> bool:
        found = [event for event in service.events() if event["event"] == "window whole"]
        return len(found) >= len(service.names)

    wait_until(whole, "the node has all exchanges")


def _measured(bench: Bench, service: Service, seconds: float) -> Done:
    before, began = service.ledger(), service.cpu().at
    cpu = exact_cpu_seconds(service.pid)
    bench.wait(seconds)
    cpu, took = exact_cpu_seconds(service.pid) - cpu, service.cpu().at - began
    updates: int = service.ledger()["cached"] - before["cached"]
    if not updates:
        raise BenchError(f"nothing came to Redis within {seconds:g} s")
    return Done(updates / took, cpu / updates * 1e6)


def _check(service: Service) -> None:
    """Stop sending. All that was sent is in Redis."""
    ledger = service.drained(service.exchanges.finish())
    if lost_of(ledger):
        raise BenchError(f"updates were lost: {ledger}")


def _answers(bench: Bench) -> list[Row]:
    """The rows of a node that only answers, beside a single service and beside the owner."""
    rates, p99s, lags = Sides(), Sides(), list[Behind]()
    seconds = 1.0 if bench.quick else 5.0
    for number in range(bench.rounds):
        with bench.stage.service() as service:
            service.exchanges.send(LITTLE)
            bench.wait(bench.warm_up)
            single = _asked(service, seconds)
            _check(service)
        with _owner_and_api(bench) as (owner, api):
            owner.exchanges.send(LITTLE)
            bench.wait(bench.warm_up)
            mirrored = _asked(api, seconds)
            lags.append(behind(owner.port, api.port, seconds))
            _check(owner)
        for sides, name in ((rates, "rate"), (p99s, "p99")):
            sides.single.append(getattr(single, name))
            sides.cluster.append(getattr(mirrored, name))
        bench.say(
            f"round {number + 1} of {bench.rounds}, answers a second: a single service {single.rate:.0f}, "
            f"an API node {mirrored.rate:.0f}; its stream is behind by p50 {lags[-1].p50:.1f}, "
            f"p99 {lags[-1].p99:.1f} ms"
        )
    what = f"`/prices/latest` of an API node at {LITTLE:,.0f} updates/s, {CLIENTS} clients"
    stream = f"an API node's `/stream` behind its owner's at {LITTLE:,.0f} updates/s"
    return [
        rates.row("answers", what, "answers/s", least=ANSWERS_GOAL),
        p99s.row("answers.p99", "the same, p99", "ms"),
        Row(
            name="cluster.behind.p50",
            what=f"{stream}, p50",
            unit="ms",
            rounds=[each.p50 for each in lags],
            raw={"rounds": [attrs.asdict(each) for each in lags]},
        ),
        Row(
            name="cluster.behind.p99",
            what=f"{stream}, p99",
            goal=f"<= {BEHIND_GOAL} ms",
            unit="ms",
            rounds=[each.p99 for each in lags],
            at_most=BEHIND_GOAL,
        ),
    ]


@contextmanager
def _owner_and_api(bench: Bench) -> Iterator[tuple[Service, Service]]:
    """A node that has all exchanges, and one that has none."""
    with bench.stage.service(settings=NODE) as owner:
        _wait_for_all(owner)
        with bench.stage.beside(owner, **API) as api:
            wait_until(lambda: api.get("/health/ready")[0] == HTTPStatus.OK, "the API node is ready")
            yield owner, api


def _asked(service: Service, seconds: float) -> Answers:
    answers = ask(service.port, "/prices/latest", connections=CLIENTS, seconds=seconds)
    if answers.failed:
        raise BenchError(f"{answers.failed} of {answers.count} answers failed: {answers.sample}")
    return answers
