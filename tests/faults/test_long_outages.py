"""Outages of hours, on the live state alone: the data kept for a store that is away stays bounded."""

from __future__ import annotations

import random

from marketflow.app.share.rows import Rows
from marketflow.app.share.second_bars import SecondBars
from marketflow.domain.bars import Bar
from marketflow.domain.periods import HOUR, MINUTE, SECOND

START = 500_000 * HOUR
PAIR = ("exchange1", "BTCUSDT")
STEP = 5 * SECOND


def test_hours_without_either_store_are_folded_to_minutes() -> None:
    """At most an hour waits for Redis, and one bar a minute for PostgreSQL; nothing is lost."""
    rng = random.Random(1)
    bars = SecondBars(boot="a", interval=MINUTE)
    to_write = Rows(bars)
    prices = []
    for second in range(START, START + 5 * HOUR, STEP):
        prices.append(rng.uniform(1, 2))
        bars.add(PAIR, second, Bar.of([second + 7], [prices[-1]], len(prices)))
        if second % MINUTE == 0:
            bars.prune(second)
    due = to_write.take_due(START + 5 * HOUR)
    assert len(due) == 5 * 60
    rows = [to_write.aggregate(row, {}) for row in due]
    assert [row.end for row in rows if row] == [START + n * MINUTE for n in range(1, 301)]
    for row, first in zip(rows, range(0, len(prices), MINUTE // STEP), strict=True):
        minute = prices[first : first + MINUTE // STEP]
        assert row is not None
        assert (row.bar.count, row.bar.min, row.bar.max) == (len(minute), min(minute), max(minute))
        assert (row.bar.open, row.bar.close) == (minute[0], minute[-1])
    held = sum(1 for _ in to_write.folded())
    assert held in range(4 * 60 - 3, 4 * 60)
    flushed, _ = bars.take_unflushed(10**9)
    assert len(flushed) <= (HOUR + 3 * MINUTE) // STEP
