"""Measures the memory of one-second bars: in the service, and in Redis.

An hour of bars with volumes and sides is kept as the service keeps them. One process measures by the growth
of its RSS, which includes what the allocator cannot use. Another one, with fewer pairs, measures by
tracemalloc, which does not include that. For Redis, `MEMORY USAGE` counts all of a hash: fields, values and
their share of its table.
"""

from __future__ import annotations

import time

from marketflow.adapters.cache.bar_fields import field_name
from marketflow.domain.packed_bars import pack_bar
from marketflow.domain.periods import HOUR, MINUTE, SECOND
from tests.bench.bars_kept import kept
from tests.bench.bench import Bench
from tests.bench.hours import BOOT, KINDS, Hour, sizes_of_hashes
from tests.bench.rows import Row
from tests.bench.stage import BenchError, symbols

GOAL = 150
"""Bytes for each bar, in the service as in Redis."""
PAIRS, QUICK_PAIRS = 500, 20
BEYOND = 4 * MINUTE
"""How much longer than an hour (ms) bars are added, so that the oldest ones are forgotten."""


def bar_size(bench: Bench) -> list[Row]:
    """The rows of one bar's memory. One round, as it hardly differs from one to the next."""
    pairs, length = (QUICK_PAIRS, 5 * MINUTE) if bench.quick else (PAIRS, HOUR)
    span = f"{pairs} pairs for {length // MINUTE} minutes"
    # An hour of Redis' bars, but of few pairs: each has a hash of its own.
    hour = Hour.until(time.time_ns() // 1_000_000, symbols=symbols(KINDS), length=length)
    packed = _packed_size(hour)
    seconds = (length if bench.quick else length + BEYOND) // SECOND
    rows = []
    for name, what, of, traced in (
        ("rss", f"memory of a one-second bar, {span}, by RSS", pairs, False),
        ("traced", f"the same by tracemalloc, {pairs // 10} pairs", pairs // 10, True),
    ):
        found = kept(of, seconds, traced=traced)
        if found.bars < of * length // SECOND:
            raise BenchError(f"only {found.bars} bars are kept of {of} pairs")
        size = found.memory / found.bars
        bench.say(f"{found.bars:,} bars of {of} pairs, {what}: {size:.0f} bytes, {found.seconds:.1f} s CPU")
        rows.append(_row(name, what, size, packed, raw={"bars": found.bars, "seconds": found.seconds}))
    redis = _in_redis(bench, hour)
    bench.say(f"{redis:.0f} bytes a field of Redis")
    what = f"Redis' memory of such a bar, {KINDS} pairs"
    rows.append(_row("redis", what, redis, packed + len(field_name((hour.first, BOOT)))))
    return rows


def _row(name: str, what: str, size: float, limit: float, raw: dict[str, float] | None = None) -> Row:
    return Row(
        name=f"bar_size.{name}",
        what=what,
        goal=f"<= {GOAL} bytes",
        unit="bytes",
        rounds=[size],
        limit=limit,
        limit_is="packed, with its name" if name == "redis" else "packed",
        at_most=GOAL,
        raw=raw or {},
    )


def _packed_size(hour: Hour) -> float:
    """The mean length of a bar in Redis."""
    sizes = [
        len(pack_bar(bar, hour.first + place * SECOND))
        for of_kind in hour.kinds
        for place, bar in enumerate(of_kind)
    ]
    return sum(sizes) / len(sizes)


def _in_redis(bench: Bench, hour: Hour) -> float:
    """The mean size of a field."""
    bench.stage.fresh()
    hour.store_bars(bench.stage.redis)
    return sum(sizes_of_hashes(bench.stage, hour.pairs).values()) / hour.fields
