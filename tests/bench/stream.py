"""Whether the clients of the live stream slow down what comes in."""

from __future__ import annotations

import attrs

from tests.bench.bench import Bench
from tests.bench.latency import P99_GOAL, probed
from tests.bench.listener import Heard, listening
from tests.bench.rows import Row, percentile
from tests.bench.stage import BenchError, Service, lost_of

RATE = 1_000.0
"""Updates a second."""
CLIENTS = 500


@attrs.frozen
class Ingestion:
    """How updates came in over some seconds."""

    sent: float
    """Updates a second that the exchanges have sent, probes included."""
    rate: float
    """Updates a second that Redis has acknowledged."""
    p99: float
    """From the exchange to Redis (ms)."""
    busy: float
    """Part of a core that the service used."""


def stream(bench: Bench) -> list[Row]:
    """The rows of the stream: each round without clients first, then with them."""
    clients = 20 if bench.quick else CLIENTS
    alone: list[Ingestion] = []
    beside: list[Ingestion] = []
    heard: list[Heard] = []
    with bench.stage.service() as service:
        service.exchanges.send(RATE)
        bench.wait(bench.warm_up)
        for number in range(bench.rounds):
            alone.append(_ingestion(bench, service))
            with listening(service.port, clients) as listeners:
                bench.wait(bench.warm_up)
                listeners.heard()
                beside.append(_ingestion(bench, service))
                heard.append(listeners.heard())
            if not heard[-1].fewest:
                raise BenchError("a client got nothing")
            bench.say(
                f"round {number + 1} of {bench.rounds}: {beside[-1].rate:,.0f} (alone {alone[-1].rate:,.0f}) "
                f"updates/s, p99 {beside[-1].p99:.0f} ({alone[-1].p99:.0f}) ms, "
                f"{beside[-1].busy:.2f} ({alone[-1].busy:.2f}) cores; a client got "
                f"{heard[-1].events / clients / heard[-1].seconds:.1f} events/s, "
                f"{heard[-1].age_p50:.0f} ms old, p99 {heard[-1].age_p99:.0f}"
            )
        ledger = service.drained(service.exchanges.finish())
        if lost_of(ledger):
            raise BenchError(f"updates were lost: {ledger}")
    raw = {
        "alone": [attrs.asdict(each) for each in alone],
        "beside": [attrs.asdict(each) for each in beside],
        "heard": [attrs.asdict(each) for each in heard],
    }
    what = f"{clients} stream clients at {RATE:,.0f} updates/s"
    sent = percentile([each.sent for each in beside], 50)
    return [
        Row(
            name="stream.rate",
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
            name="stream.latency",
            what=f"{what}: receipt to Redis, p99",
            goal=f"<= {P99_GOAL} ms",
            at_most=P99_GOAL,
            unit="ms",
            rounds=[each.p99 for each in beside],
            limit=percentile([each.p99 for each in alone], 50),
            limit_is="without clients",
        ),
        Row(
            name="stream.age",
            what=f"{what}: age of what a client reads, p99",
            unit="ms",
            rounds=[each.age_p99 for each in heard],
        ),
    ]


def _ingestion(bench: Bench, service: Service) -> Ingestion:
    before, sent, cpu = service.ledger(), service.exchanges.sent(), service.cpu()
    took = probed(bench, service, 1.0 if bench.quick else 5.0)
    used, after = service.cpu() - cpu, service.ledger()
    return Ingestion(
        sent=(service.exchanges.sent() - sent) / used.at,
        rate=(after["cached"] - before["cached"]) / used.at,
        p99=percentile(took, 99),
        busy=used.service / used.at,
    )
