"""The gain of a second Redis with half of the keys: the limit alone, without the service."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import attrs

from tests.bench.bench import Bench
from tests.bench.raw_redis import RawRedis, feed, raw_redis, window_keys
from tests.bench.rows import Row
from tests.servers import TcpRedis

EXCHANGES, SYMBOLS = 4, 5


def sharding(bench: Bench) -> list[Row]:
    """The row of two servers, each fed by a thread that mostly waits for it."""
    seconds = 2.0 if bench.quick else 15.0
    alone: list[RawRedis] = []
    shared: list[tuple[RawRedis, RawRedis]] = []
    for number in range(bench.rounds):
        bench.say(f"round {number + 1} of {bench.rounds}, {seconds:g} s each")
        alone.append(
            raw_redis(
                bench.stage,
                exchanges=EXCHANGES,
                symbols_count=SYMBOLS,
                seconds=seconds,
                window=bench.window,
            )
        )
        shared.append(_on_two(bench, seconds))
        first, second = shared[-1]
        bench.say(
            f"one {alone[-1].rate:,.0f}/s, two {first.rate + second.rate:,.0f}/s; us a member: "
            f"{alone[-1].cpu_us:.2f}, {first.cpu_us:.2f} and {second.cpu_us:.2f}"
        )
    return [
        Row(
            name="sharding",
            what="raw Redis, keys shared out to two servers",
            unit="updates/s",
            rounds=[first.rate + second.rate for first, second in shared],
            limit=max(each.rate for each in alone),
            limit_is="one server, best",
            raw={
                "one": [attrs.asdict(each) for each in alone],
                "two": [[attrs.asdict(each) for each in both] for both in shared],
            },
        )
    ]


def _on_two(bench: Bench, seconds: float) -> tuple[RawRedis, RawRedis]:
    bench.stage.fresh()
    second = TcpRedis(bench.stage.directory / "second-redis")
    second.start()
    keys = window_keys(EXCHANGES, SYMBOLS)
    half = len(keys) // 2
    try:
        with ThreadPoolExecutor(2) as threads:
            fed = [
                threads.submit(feed, server, part, seconds=seconds, window=bench.window)
                for server, part in ((bench.stage.redis, keys[:half]), (second, keys[half:]))
            ]
            return fed[0].result(), fed[1].result()
    finally:
        second.kill()
        second.stop()
