"""The whole pipeline at its limit: exchanges that flood, and the updates that arrive in Redis."""

from __future__ import annotations

import time
from typing import Any

import attrs

from tests.bench.bench import Bench
from tests.bench.exchanges import Sent
from tests.bench.processes import peak_rss, rss
from tests.bench.raw_redis import MEMBER, RawRedis, raw_redis
from tests.bench.rows import Row
from tests.bench.stage import BenchError, Service, lost_of, symbols

EXCHANGES, SYMBOLS = 3, 5
LIMIT_ROUNDS = 3
MB = 1_000_000


@attrs.frozen
class Flood:
    """The result of one round."""

    rate: float
    """Updates a second that Redis acknowledged."""
    service_us: float
    """Processor time for each update."""
    redis_us: float
    postgres_us: float
    sender_us: float
    service_busy: float
    """As a fraction of a core."""
    redis_busy: float
    others_busy: float
    """Programs that are not part of the measurement."""
    rss: int
    peak_rss: int
    lost: int
    """Updates that were dropped, rejected or expired."""
    checked: int
    """Members in Redis that were compared with what was sent."""


def sustained(bench: Bench) -> list[Row]:
    """The rows of the sustained flood."""
    floods: list[Flood] = []
    limits: list[RawRedis] = []
    window = bench.window
    for number in range(bench.rounds):
        if number < LIMIT_ROUNDS:
            bench.say(f"raw Redis for {bench.duration:g} s")
            limits.append(
                raw_redis(
                    bench.stage,
                    exchanges=EXCHANGES,
                    symbols_count=SYMBOLS,
                    seconds=bench.duration,
                    window=window,
                )
            )
            bench.say(f"raw Redis: {limits[-1].rate:,.0f}/s, {limits[-1].cpu_us:.2f} us a member")
        bench.say(f"round {number + 1} of {bench.rounds}, {bench.duration:g} s")
        floods.append(_round(bench, window))
        bench.say(_told(floods[-1], max(each.rate for each in limits)))
    raw = {
        "rounds": [attrs.asdict(each) for each in floods],
        "raw_redis": [attrs.asdict(each) for each in limits],
    }
    return _rows(floods, limits, raw)


def _round(bench: Bench, window: float) -> Flood:
    with bench.stage.service(
        exchanges=EXCHANGES, symbols_count=SYMBOLS, settings={"WINDOW__LENGTH": window}
    ) as service:
        service.exchanges.flood()
        time.sleep(bench.warm_up)
        before, cpu_before = service.ledger(), service.cpu()
        bench.wait(bench.duration)
        cpu, after = service.cpu() - cpu_before, service.ledger()
        memory = rss(service.pid)
        updates = after["cached"] - before["cached"]
        sent = service.exchanges.finish()
        ledger = service.drained(sent)
        lost = lost_of(ledger)
        checked = 0 if lost else _compare(service, sent, window)
        return Flood(
            rate=updates / cpu.at,
            service_us=cpu.service / updates * 1e6,
            redis_us=cpu.redis / updates * 1e6,
            postgres_us=cpu.postgres / updates * 1e6,
            sender_us=cpu.sender / updates * 1e6,
            service_busy=cpu.service / cpu.at,
            redis_busy=cpu.redis / cpu.at,
            others_busy=cpu.others / cpu.at,
            rss=memory,
            peak_rss=peak_rss(service.pid),
            lost=lost,
            checked=checked,
        )


def _compare(service: Service, sent: Sent, window: float) -> int:
    """Check that Redis has what was sent, second by second; returns the number of compared members."""
    compared = 0
    with service.stage.client() as client:
        (member,) = client.zrevrange(f"prices:{service.names[0]}:{symbols(SYMBOLS)[0]}", 0, 0)
        if not MEMBER.fullmatch(member):
            raise BenchError(f"raw_redis.py does not write what the service does: {member!r}")
        for name, counts in zip(service.names, sent.seconds, strict=True):
            for second, count in counts.items():
                found = sum(
                    int(client.zcount(f"prices:{name}:{symbol}", second * 1_000, second * 1_000 + 999))
                    for symbol in symbols(SYMBOLS)
                )
                # By now it may have been trimmed.
                if second > time.time() - window:
                    compared += count
                    if found != count:
                        raise BenchError(f"{name} sent {count} lines in second {second}, Redis has {found}")
    return compared


def _told(flood: Flood, limit: float) -> str:
    return (
        f"{flood.rate:,.0f}/s, {flood.rate / limit:.2f} x raw Redis; "
        f"us an update: service {flood.service_us:.2f}, Redis {flood.redis_us:.2f}, "
        f"sender {flood.sender_us:.2f}; cores: service {flood.service_busy:.2f}, "
        f"Redis {flood.redis_busy:.2f}, others {flood.others_busy:.2f}; "
        f"RSS {flood.rss / MB:.0f} MB, peak {flood.peak_rss / MB:.0f}; lost {flood.lost}; "
        f"{flood.checked:,} members compared"
    )


def _rows(floods: list[Flood], limits: list[RawRedis], raw: dict[str, Any]) -> list[Row]:
    best = max(each.rate for each in limits)
    return [
        Row(
            name="sustained",
            what="sustained end to end, three exchanges flooding",
            goal=">= 0.7 x raw Redis",
            unit="updates/s",
            rounds=[each.rate for each in floods],
            limit=best,
            limit_is="raw Redis, trimming included, best of 3",
            at_least=0.7 * best,
            raw=raw,
        ),
        Row(
            name="sustained.busy",
            what="at flood, Redis' part of a core less the service's",
            goal=">= 0: Redis is the busy one",
            unit="cores",
            rounds=[each.redis_busy - each.service_busy for each in floods],
            at_least=0,
        ),
        Row(
            name="sustained.lost",
            what="dropped, expired or rejected at flood",
            goal="0",
            unit="updates",
            rounds=[each.lost for each in floods],
            at_most=0,
        ),
        Row(
            name="sustained.cpu",
            what="CPU of the service for each update at flood",
            goal="<= 0.9 us",
            unit="us",
            rounds=[each.service_us for each in floods],
            at_most=0.9,
        ),
        Row(
            name="sustained.by_cpu",
            what="the same by processor time alone, each process with a core to itself",
            unit="updates/s",
            rounds=[1e6 / max(each.service_us, each.redis_us) for each in floods],
            limit=1e6 / min(each.cpu_us for each in limits),
            limit_is="raw Redis",
        ),
        Row(
            name="sustained.redis_cpu",
            what="CPU of Redis for each update at flood",
            unit="us",
            rounds=[each.redis_us for each in floods],
            limit=min(each.cpu_us for each in limits),
            limit_is="raw Redis, a member",
        ),
        Row(
            name="sustained.memory",
            what="RSS of the service at flood",
            unit="MB",
            rounds=[each.rss / MB for each in floods],
        ),
    ]
