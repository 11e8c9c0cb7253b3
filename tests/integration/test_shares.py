"""Two shares in one process, over disjoint exchanges, on the same real stores."""

from __future__ import annotations

import itertools
import math
import time
from collections import defaultdict
from contextlib import AsyncExitStack, asynccontextmanager

import psycopg
import pytest
import redis
import trio
from builders import batch_of

from marketflow.adapters.cache.redis import open_redis_window
from marketflow.adapters.db.postgres import PostgresStore
from marketflow.adapters.state.spool import FileSpool
from marketflow.app.instruments.clocks import SystemClock
from marketflow.app.ports import Scope
from marketflow.app.share.making import ShareOptions, make_share
from marketflow.domain.periods import MINUTE, SECOND, Span, floor_to

INTERVAL, GRACE = 2 * SECOND, 200
OPTIONS = ShareOptions(
    interval=INTERVAL,
    grace=GRACE,
    lateness=2 * MINUTE,
    retention=None,
    window_length=MINUTE,
    replay_memory=2**20,
    flush_interval=50,
    patience=1_000,
)
SYMBOL = "BTCUSDT"
MOST_LOST = 50
"""Updates, one every 10 ms: the flush interval, and half a second for a busy machine."""


def now() -> int:
    return time.time_ns() // 1_000_000


class Owner:
    """Successive shares of one exchange, and all updates that they accepted."""

    def __init__(self, exchange, redis_url, dsn, directory):
        self.exchange, self.accepted = exchange, []
        self._redis_url, self._dsn, self._directory = redis_url, dsn, directory
        self._boots = itertools.count(1)

    @asynccontextmanager
    async def running(self, *, killed=False):
        """A running share; ended in order, or cancelled."""
        scope = Scope(frozenset({self.exchange}))
        boot = f"{self.exchange}b{next(self._boots)}"
        async with AsyncExitStack() as stack:
            window = await stack.enter_async_context(
                open_redis_window(self._redis_url, boot=boot, window_length=MINUTE, timeout=5, scope=scope)
            )
            store = await stack.enter_async_context(
                PostgresStore(self._dsn, interval=INTERVAL, timeout=5, scope=scope)
            )
            share = make_share(
                boot=boot,
                limits={self.exchange: 100_000},
                symbols=[SYMBOL],
                generated=(),
                window=window,
                store=store,
                spool=FileSpool(self._directory, self.exchange, self.exchange),
                clock=SystemClock(),
                options=OPTIONS,
            )
            await share.lease()
            await share.begin(now())
            with trio.CancelScope() as scope_of_run:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(share.run)
                    nursery.start_soon(self._play, share)
                    yield share
                    if killed:
                        scope_of_run.cancel()
                    else:
                        self._playing.cancel()
                        share.end()
            if not killed:
                await share.save(2.0)

    async def _play(self, share):
        """Send an update every 10 ms."""
        with trio.CancelScope() as self._playing:
            for number in itertools.count():
                timestamp, price = now(), 100.0 + number % 7
                self.accepted.append((timestamp, price))
                await share.book.enter(batch_of(self.exchange, [(SYMBOL, price, timestamp)]))
                await trio.sleep(0.01)


def rows_of(dsn, exchange):
    with psycopg.connect(dsn) as connection:
        query = (
            "SELECT (extract(epoch FROM timestamp) * 1000)::bigint, update_count, min_price, max_price,"
            " average_price FROM price_aggregates WHERE exchange = %s"
        )
        return {end: row for end, *row in connection.execute(query, [exchange]).fetchall()}


def right_rows(accepted, until):
    prices = defaultdict(list)
    for timestamp, price in accepted:
        prices[floor_to(timestamp, INTERVAL) + INTERVAL].append(price)
    return {
        end: [len(of), min(of), max(of), pytest.approx(math.fsum(of) / len(of))]
        for end, of in prices.items()
        if end <= until
    }


@pytest.mark.parametrize("killed", [False, True])
async def test_two_shares_run_side_by_side_and_one_is_ended_and_begun_again(
    killed, redis_url, postgres_dsn, tmp_path
):
    one = Owner("exchange1", redis_url, postgres_dsn, tmp_path)
    other = Owner("exchange2", redis_url, postgres_dsn, tmp_path)
    async with other.running() as beside:
        async with one.running(killed=killed):
            await trio.sleep(3.3)  # Within an interval, so that both boots have a part of it.
        first_part = list(one.accepted)
        async with one.running() as again:
            began = trio.current_time()
            while not again.standing.history_known:
                assert trio.current_time() < began + 5
                await trio.sleep(0.05)
            # It knows the updates of the boot before, except for the last flush interval after a kill.
            bars = again.book.bars.fields(("exchange1", SYMBOL), Span(first_part[0][0] - SECOND, now()))
            known = sum(bar.count for (_, boot), bar in bars.items() if boot != again.book.boot)
            assert len(first_part) - (MOST_LOST if killed else 0) <= known <= len(first_part)
            await trio.sleep(3)
        # The other share is not affected.
        assert beside.redis.up
        assert beside.postgres.up
        assert not beside.leases.window.another
    until = now() - GRACE
    with redis.Redis.from_url(redis_url) as client:
        assert client.zcard(f"prices:exchange2:{SYMBOL}") == len(other.accepted)
        held = client.zcard(f"prices:exchange1:{SYMBOL}")
        assert len(one.accepted) - (MOST_LOST if killed else 0) <= held <= len(one.accepted)
        assert client.exists("marketflow:lock", "marketflow:marker") == 0
    assert not list(tmp_path.glob("**/*.spool*"))
    right = right_rows(other.accepted, until - INTERVAL)
    assert len(right) >= 2
    rows = rows_of(postgres_dsn, "exchange2")
    assert {end: rows.get(end) for end in right} == right
    rows, right = rows_of(postgres_dsn, "exchange1"), right_rows(one.accepted, until - INTERVAL)
    if killed:
        assert sum(row[0] for row in rows.values()) >= sum(row[0] for row in right.values()) - MOST_LOST
        assert rows.keys() >= right.keys()
    else:
        assert {end: rows.get(end) for end in right} == right
