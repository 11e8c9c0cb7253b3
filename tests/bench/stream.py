"""Measures whether clients of the live stream slow down the ingestion."""

from __future__ import annotations

import statistics

import attrs

from tests.bench.bench import Bench
from tests.bench.latency import P99_GOAL, probed
from tests.bench.listeners import REQUESTS, Heard, listening
from tests.bench.rows import Row, percentile
from tests.bench.stage import BenchError, Service, lost_of

RATE = 1_000.0
"""Updates a second."""
CLIENTS = 500


@attrs.frozen
class Ingestion:
    """The figures of the ingestion over some seconds."""

    sent: float
    """Updates a second that the exchanges sent, probes included."""
    rate: float
    """Updates a second that were accepted."""
    p99: float
    """In ms, from the exchange to Redis."""
    busy: float
    """The fraction of a core that the service used."""

    def __str__(self) -> str:
        return f"{self.rate:,.0f} of {self.sent:,.0f} updates/s, p99 {self.p99:.0f} ms, {self.busy:.2f} cores"


Beside = tuple[Ingestion, Heard]


def stream(bench: Bench) -> list[Row]:
    """The rows of /stream and /ws. Each round first runs without clients, then with clients of each kind."""
    clients = 20 if bench.quick else CLIENTS
    alone: list[Ingestion] = []
    beside: dict[str, list[Beside]] = {kind: [] for kind in REQUESTS}
    with bench.stage.service() as service:
        service.exchanges.send(RATE)
        bench.wait(bench.warm_up)
        for number in range(bench.rounds):
            alone.append(_ingestion(bench, service))
            bench.say(f"round {number + 1} of {bench.rounds}, nobody listens: {alone[-1]}")
            for kind, rounds in beside.items():
                rounds.append(_listened(bench, service, kind, clients))
                ingestion, heard = rounds[-1]
                bench.say(f"{clients} clients of /{kind}: {ingestion}; {heard}")
        ledger = service.drained(service.exchanges.finish())
        if lost_of(ledger):
            raise BenchError(f"updates were lost: {ledger}")
    return [row for kind, rounds in beside.items() for row in _rows(kind, clients, alone, rounds)]


def _rows(
    name: str, clients: int, alone: list[Ingestion], rounds: list[tuple[Ingestion, Heard]]
) -> list[Row]:
    what = f"{clients} clients of /{name} at {RATE:,.0f} updates/s"
    beside = [ingestion for ingestion, _ in rounds]
    sent = statistics.median(each.sent for each in beside)
    raw = {
        "alone": [attrs.asdict(each) for each in alone],
        "beside": [[attrs.asdict(ingestion), attrs.asdict(heard)] for ingestion, heard in rounds],
    }
    return [
        Row(
            name=f"{name}.rate",
            what=f"{what}: what comes in",
            goal=">= 0.99 x what is sent",
            at_least=0.99 * sent,
            unit="updates/s",
            rounds=[each.rate for each in beside],
            limit=sent,
            limit_is="what is sent",
            raw=raw,
        ),
        Row(
            name=f"{name}.latency",
            what=f"{what}: receipt to Redis, p99",
            goal=f"<= {P99_GOAL} ms",
            at_most=P99_GOAL,
            unit="ms",
            rounds=[each.p99 for each in beside],
            limit=statistics.median(each.p99 for each in alone),
            limit_is="without clients",
        ),
        Row(
            name=f"{name}.age",
            what=f"{what}: age of what a client reads, p99",
            unit="ms",
            rounds=[heard.age_p99 for _, heard in rounds],
        ),
    ]


def _listened(bench: Bench, service: Service, kind: str, clients: int) -> Beside:
    with listening(service.port, kind, clients) as listeners:
        bench.wait(bench.warm_up)
        listeners.heard()
        ingestion = _ingestion(bench, service)
        heard = listeners.heard()
    if not heard.fewest:
        raise BenchError(f"a client of /{kind} got nothing")
    return ingestion, heard


def _ingestion(bench: Bench, service: Service) -> Ingestion:
    before, sent, cpu = service.ledger(), service.exchanges.sent(), service.cpu()
    took = probed(bench, service, 1.0 if bench.quick else 5.0)
    used, after = service.cpu() - cpu, service.ledger()
    return Ingestion(
        sent=(service.exchanges.sent() - sent) / used.at,
        rate=(after["accepted"] - before["accepted"]) / used.at,
        p99=percentile(took, 99),
        busy=used.service / used.at,
    )
