"""Requests while updates arrive, compared with servers that do nothing else than answer."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence

import attrs

from tests.bench.asker import Answers, ask
from tests.bench.bare_server import bare_server
from tests.bench.bench import Bench
from tests.bench.rows import Row
from tests.bench.stage import BenchError

RATE = 100_000.0
"""Updates a second during the requests for the latest prices."""
WINDOW_UPDATES = 5_000_000
WINDOW_SECONDS = 60
FEW_CONNECTIONS = 8
MANY_CONNECTIONS = 32
"""With so many, requests mostly wait for each other: a bare server answers each after 45 ms."""
HIGHEST_CONNECTIONS = 4


def latest(bench: Bench) -> list[Row]:
    """The rows of `/prices/latest`, and of the bare servers."""
    seconds = 1.0 if bench.quick else 5.0
    few, many = FEW_CONNECTIONS, MANY_CONNECTIONS
    asgi: list[Answers] = []
    quart: list[Answers] = []
    quart_few: list[Answers] = []
    loaded: list[Answers] = []
    ours: list[Answers] = []
    ours_few: list[Answers] = []
    with bench.stage.service() as service, bare_server("asgi") as bare, bare_server("quart") as hello:
        for number in range(bench.rounds):
            bench.say(f"round {number + 1} of {bench.rounds}, {seconds:g} s each")
            asgi.append(_asked(bare, "/", many, seconds))
            quart.append(_asked(hello, "/", many, seconds))
            quart_few.append(_asked(hello, "/", few, seconds))
            service.exchanges.send(RATE)
            bench.wait(bench.warm_up)
            ours.append(_asked(service.port, "/prices/latest", many, seconds))
            ours_few.append(_asked(service.port, "/prices/latest", few, seconds))
            loaded.append(_asked(hello, "/", many, seconds))
            service.drained(service.exchanges.finish())
            bench.say(
                f"a second: bare ASGI {asgi[-1].rate:.0f}, Quart {quart[-1].rate:.0f} (the load beside it "
                f"{loaded[-1].rate:.0f}), latest {ours[-1].rate:.0f} at p50 {ours[-1].p50:.1f}, "
                f"p99 {ours[-1].p99:.1f} ms; {few} clients: hello's p99 {quart_few[-1].p99:.1f}, "
                f"latest at p50 {ours_few[-1].p50:.1f}, p99 {ours_few[-1].p99:.1f} ms"
            )
    best = max(each.rate for each in quart)
    beside = max(each.rate for each in loaded)
    what = f"`/prices/latest` while {RATE:,.0f} updates/s come in"
    return [
        _p99("latest.p99_few", f"{what}, p99, {few} clients without pause", ours_few, quart_few),
        _p99("latest.p99", f"the same, {many} clients", ours, quart),
        Row(
            name="latest.rate",
            what=f"{what}, {many} clients",
            goal=">= 0.7 x a bare Quart-Trio hello",
            unit="answers/s",
            rounds=[each.rate for each in ours],
            limit=best,
            limit_is="Quart-Trio hello, nothing beside it",
            at_least=0.7 * best,
            raw={"quart": [attrs.asdict(each) for each in quart]},
        ),
        Row(
            name="latest.rate_beside",
            what="the same, beside a hello that shares the cores with that load",
            unit="answers/s",
            rounds=[each.rate for each in ours],
            limit=beside,
            limit_is="Quart-Trio hello, the load beside it",
            raw={"quart_loaded": [attrs.asdict(each) for each in loaded]},
        ),
        Row(
            name="latest.bare",
            what="a bare Quart-Trio hello",
            unit="answers/s",
            rounds=[each.rate for each in quart],
            limit=max(each.rate for each in asgi),
            limit_is="bare ASGI on hypercorn",
            raw={"asgi": [attrs.asdict(each) for each in asgi]},
        ),
    ]


def _p99(name: str, what: str, ours: Sequence[Answers], hello: Sequence[Answers]) -> Row:
    """The p99 of answers, compared with a hello for as many clients."""
    return Row(
        name=name,
        what=what,
        goal="<= 50 ms",
        unit="ms",
        rounds=[each.p99 for each in ours],
        limit=statistics.median(each.p99 for each in hello),
        limit_is="Quart-Trio hello, nothing beside it",
        at_most=50,
        raw={
            "rounds": [attrs.asdict(each) for each in ours],
            "quart": [attrs.asdict(each) for each in hello],
        },
    )


def highest(bench: Bench) -> list[Row]:
    """The row of `/prices/highest` over a full window."""
    seconds = 1.0 if bench.quick else 5.0
    filling = 2.0 if bench.quick else WINDOW_SECONDS + 2.0
    # A little more than 5 million a minute, as pacing is not exact.
    rate = 20_000.0 if bench.quick else 1.01 * WINDOW_UPDATES / WINDOW_SECONDS
    path = f"/prices/highest?period={WINDOW_SECONDS}s"
    ours: list[Answers] = []
    updates: list[int] = []
    with bench.stage.service() as service:
        service.exchanges.send(rate)
        bench.say(f"filling the window for {filling:g} s")
        bench.wait(filling)
        for number in range(bench.rounds):
            bench.say(f"round {number + 1} of {bench.rounds}, {seconds:g} s")
            ours.append(_asked(service.port, path, HIGHEST_CONNECTIONS, seconds))
            updates.append(sum(each["updates"] for each in json.loads(ours[-1].sample)["prices"]))
            bench.say(
                f"p50 {ours[-1].p50:.1f}, p99 {ours[-1].p99:.1f} ms, {ours[-1].rate:.0f}/s "
                f"over {updates[-1]:,} updates"
            )
        service.drained(service.exchanges.finish())
    return [
        Row(
            name="highest.p99",
            what=f"`/prices/highest?period=1m` over {min(updates) / 1e6:.1f} million updates, p99, "
            f"{HIGHEST_CONNECTIONS} clients without pause",
            goal="<= 100 ms",
            unit="ms",
            rounds=[each.p99 for each in ours],
            at_most=100,
            raw={"rounds": [attrs.asdict(each) for each in ours], "updates": updates},
        )
    ]


def _asked(port: int, path: str, connections: int, seconds: float) -> Answers:
    answers = ask(port, path, connections=connections, seconds=seconds)
    if answers.failed:
        raise BenchError(f"{answers.failed} of {answers.count} answers to {path} failed: {answers.sample}")
    return answers
