"""Two shares in one process, over disjoint exchanges, on the same real stores."""

from __future__ import annotations

import itertools
import math
import time
from collections import defaultdict
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import psycopg
import pytest
import redis
import trio
from builders import batch_of

from marketflow.adapters.cache.bar_fields import read_bar, read_field
from marketflow.adapters.cache.redis import open_redis_window
from marketflow.adapters.db.postgres import PostgresStore
from marketflow.adapters.state.spool import FileSpool
from marketflow.app.instruments.clocks import SystemClock
from marketflow.app.ports import Aggregate, Scope
from marketflow.app.share.making import ShareOptions, make_share
from marketflow.domain.bars import Bar
from marketflow.domain.periods import HOUR, MINUTE, SECOND, Span, floor_to

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
NOBODY_REDIS, NOBODY_POSTGRES = "redis://127.0.0.1:1/0", "postgresql://marketflow@127.0.0.1:1/marketflow"
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
    async def running(self, *, killed=False, away=False, options=OPTIONS):
        """A running share; ended in order, or cancelled. With `away` it reaches neither store."""
        redis_url, dsn = (NOBODY_REDIS, NOBODY_POSTGRES) if away else (self._redis_url, self._dsn)
        scope = Scope(frozenset({self.exchange}))
        boot = f"{self.exchange}b{next(self._boots)}"
        async with AsyncExitStack() as stack:
            window = await stack.enter_async_context(
                open_redis_window(redis_url, boot=boot, window_length=MINUTE, timeout=5, scope=scope)
            )
            store = await stack.enter_async_context(
                PostgresStore(dsn, interval=INTERVAL, timeout=5, scope=scope)
            )
            share = make_share(
                boot=boot,
                limits={self.exchange: 100_000},
                symbols=[SYMBOL],
                generated=(),
                window=window,
                store=store,
                spool=FileSpool(self._directory, "stores", scope=scope),
                clock=SystemClock(),
                options=options,
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
                assert trio.current_time() < began + 20
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
    assert not list(tmp_path.iterdir())
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


async def until(condition, seconds=30):
    """Wait until that is so."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - stores cannot set an event
            await trio.sleep(0.05)


def old_rows(dsn):
    """The exchanges that have a row of long ago."""
    with psycopg.connect(dsn) as connection:
        query = "SELECT exchange FROM price_aggregates WHERE timestamp < now() - interval '1 hour'"
        return {exchange for (exchange,) in connection.execute(query)}


async def test_a_share_leaves_the_spool_and_the_old_rows_of_another_alone(redis_url, postgres_dsn, tmp_path):
    """Both could reach no store when they ended. One is begun again, then the other."""
    options = attrs.evolve(OPTIONS, retention=HOUR)
    owners = [Owner(f"exchange{number}", redis_url, postgres_dsn, tmp_path) for number in (1, 2)]
    one, other = owners
    for owner in owners:
        async with owner.running(away=True):
            await trio.sleep(0.5)
    spools = set(tmp_path.iterdir())
    assert len(spools) == 2
    async with PostgresStore(postgres_dsn, interval=INTERVAL, timeout=5) as everything:
        await everything.lease()
        start = floor_to(now() - 2 * HOUR, INTERVAL)
        bar = Bar.of_ascending([start], [1.0])
        await everything.write(
            [
                Aggregate(name, SYMBOL, start + INTERVAL, bar)
                for name in (one.exchange, other.exchange, "gone")
            ]
        )
    async with one.running(options=options):
        await until(lambda: len(list(tmp_path.iterdir())) == 1)
        await until(lambda: old_rows(postgres_dsn) == {other.exchange, "gone"})
    (left,) = tmp_path.iterdir()
    assert left in spools
    assert rows_of(postgres_dsn, other.exchange).keys() == {start + INTERVAL}
    async with other.running(options=options):
        await until(lambda: not list(tmp_path.iterdir()))
        await until(lambda: old_rows(postgres_dsn) == {"gone"})
    with redis.Redis.from_url(redis_url) as client:
        for owner in owners:
            fields = client.hgetall(f"bars:{owner.exchange}:{SYMBOL}")
            bars = [read_bar(value, read_field(name)[0]) for name, value in fields.items()]
            assert sum(bar.count for bar in bars) == len(owner.accepted)
