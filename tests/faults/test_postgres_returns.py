"""PostgreSQL away while minutes pass: no row is missing afterwards, none is there twice, or smaller."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
import trio
from rig import (
    Service,
    all_sent,
    check_summary,
    eventually,
    exchanges,
    now_ms,
    playing,
    rows_are_right,
    service,
    settings_for,
    spools,
    stored_rows,
    window_is_whole,
)

from marketflow.embedded import EmbeddedPostgres, EmbeddedRedis

INTERVAL = 1_000


async def in_thread(call: object) -> None:
    """Ending a server takes a moment, which the service must not spend waiting."""
    await trio.to_thread.run_sync(call)


async def up(it: Service) -> None:
    """Wait until both stores are."""

    def both() -> bool:
        report = it.running.report()
        return report.redis.status == report.postgres.status == "up"

    await eventually(both, within=6)


def lock_holders(dsn: str) -> int:
    """How many connections hold the lock of the one service on a database."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
        ).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("how", ["killed", "paused"])
async def test_postgres_comes_back(
    how: str, own_postgres: EmbeddedPostgres, redis_url: str, tmp_path: Path
) -> None:
    """Feeds and answers go on; rows come oldest first when it is back, and the lock is taken again."""
    async with exchanges("exchange1", "exchange2") as players:
        settings = settings_for(
            players,
            redis_url,
            own_postgres.dsn,
            tmp_path,
            aggregation={"interval": INTERVAL, "grace": 100},
            postgres={"timeout": 500},
        )
        async with service(settings, players) as it, playing(*players, behind=(0, 0, 40)):
            await eventually(lambda: stored_rows(own_postgres.dsn), within=4)
            if how == "paused":
                own_postgres.pause()
            else:
                await in_thread(own_postgres.kill)
            await eventually(lambda: it.running.report().postgres.status == "away", within=2)
            until, accepted = trio.current_time() + 2, it.updates.accepted
            while trio.current_time() < until:
                async with it.still() as sent:
                    answer = await it.get("/prices/aggregate/BTCUSDT?period=1m", within=1)
                assert answer["source"] == "redis"
                check_summary(answer, sent)
                await trio.sleep(0.3)
                assert it.updates.accepted > accepted, "the feeds stall"
                accepted = it.updates.accepted
            if how == "paused":
                own_postgres.resume()
            else:
                own_postgres.start()
            back = now_ms()
            await up(it)
            await rows_are_right(own_postgres.dsn, all_sent(players), INTERVAL, until=back - INTERVAL)
            ends = [end for _, _, end in stored_rows(own_postgres.dsn)]
            assert ends == sorted(ends)
            assert lock_holders(own_postgres.dsn) == 1
        await rows_are_right(own_postgres.dsn, all_sent(players), INTERVAL, until=now_ms() - 2 * INTERVAL)


async def test_restarted_while_postgres_is_away(
    own_postgres: EmbeddedPostgres, redis_url: str, tmp_path: Path
) -> None:
    """The next boot, ready without PostgreSQL, finds the bars in Redis and writes the rows."""
    async with exchanges("exchange1") as players:
        settings = settings_for(players, redis_url, own_postgres.dsn, tmp_path)
        async with service(settings, players) as it, playing(*players):
            await eventually(lambda: it.updates.cached > 20)
            await in_thread(own_postgres.kill)
            await trio.sleep(1)
        async with service(settings, players) as it, playing(*players):
            assert (await it.ask("/health/ready")).status == 200
            await trio.sleep(0.5)
            async with it.still() as sent:
                check_summary(await it.get("/prices/aggregate/BTCUSDT?period=1m"), sent)
            own_postgres.start()
            await up(it)
            await rows_are_right(own_postgres.dsn, all_sent(players), until=now_ms() - 3_000)
        assert not spools(tmp_path), "there was nothing to spool: Redis had it"


async def test_both_stores_away(
    own_redis: EmbeddedRedis, own_postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    """At the start, and again later; they come back in one order and in the other, Redis empty.

    The service is ready at once, answers from memory, and in the end both stores have everything.
    """
    async with exchanges("exchange1", "exchange2") as players:
        settings = settings_for(players, own_redis.url, own_postgres.dsn, tmp_path)
        own_redis.kill()
        own_postgres.kill()
        started = trio.current_time()
        async with service(settings, players) as it, playing(*players):
            assert trio.current_time() - started < 2
            assert (await it.ask("/health/ready")).status == 200
            assert (await it.get("/health"))["status"] == "degraded"
            await trio.sleep(2.2)
            async with it.still() as sent:
                answer = await it.get("/prices/aggregate/BTCUSDT?period=1m")
            assert answer["source"] == "memory"
            # Longer ago is in the stores: it says that it cannot tell.
            assert answer["end"] - answer["start"] < 10_000
            check_summary(answer, sent)
            own_redis.start()
            await trio.sleep(0.5)
            own_postgres.start()
            await up(it)
            # Read from Redis, and compared with the rows, the history tells: before the start was nothing.
            async with it.still() as sent:

                async def whole() -> bool:
                    answer = await it.get("/prices/aggregate/BTCUSDT?period=1m")
                    check_summary(answer, sent)
                    return answer["source"] == "redis" and answer["end"] - answer["start"] == 60_000

                await eventually(whole, within=1.5)

            own_redis.kill()
            await in_thread(own_postgres.kill)
            await trio.sleep(2.2)
            own_postgres.start()
            await trio.sleep(1)
            own_redis.start()
            await up(it)
            await window_is_whole(own_redis.url, players, within=2)
            await rows_are_right(own_postgres.dsn, all_sent(players), until=now_ms() - 3_000)
            assert lock_holders(own_postgres.dsn) == 1
