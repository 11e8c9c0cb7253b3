"""Kill -9, stops that no store takes anything at, and a second service on the same stores."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import redis
import trio
from programs import INTERVAL, program
from rig import (
    BASE,
    TICK,
    Sent,
    all_sent,
    eventually,
    exchanges,
    http,
    now_ms,
    playing,
    rows_are_right,
    service,
    settings_for,
    spools,
)

from marketflow.embedded import EmbeddedPostgres, EmbeddedRedis

KILLS = 5
ROUNDS = 2
MARGIN = 1.0
"""Seconds: a flush interval (50 ms), and for how long the program may not have had its turn on a machine
that runs other tests too. It counts from when a line was sent, which may be long before it was received."""


def in_window(url: str, sent: Sequence[Sent]) -> list[Sent]:
    """Those of the sent that Redis holds, each once, and that it holds nothing else."""
    held: set[tuple[str, str, int, float]] = set()
    with redis.Redis.from_url(url) as client:
        for exchange, symbol in {(each.exchange, each.symbol) for each in sent}:
            for member, score in client.zrange(f"prices:{exchange}:{symbol}", 0, -1, withscores=True):
                key = exchange, symbol, int(score), float(member.split(b":")[0])
                assert key not in held, "an update is there twice"
                held.add(key)
    found = [each for each in sent if (each.exchange, each.symbol, each.timestamp, each.price) in held]
    assert len(found) == len(held)
    return found


@pytest.mark.parametrize("number_of_round", range(ROUNDS))
async def test_killed_again_and_again(
    number_of_round: int, redis_url: str, postgres_dsn: str, tmp_path: Path
) -> None:
    """Each kill -9 costs what was received in the last flush interval at most; else rows are right."""
    rng = random.Random()
    kills: list[tuple[float, float]] = []
    kept: dict[int, Sent] = {}
    async with exchanges("exchange1", "exchange2") as players, playing(*players, tick=TICK / 2):
        for number in range(KILLS + 1):
            async with program(players, redis_url, postgres_dsn, tmp_path, f"run{number}") as run:
                await eventually(lambda: all(each.connected for each in players), within=20)
                if kills:
                    kills[-1] = kills[-1][0], time.monotonic()
                if number < KILLS:
                    await trio.sleep(rng.uniform(0.2, 1.2))
                    run.process.kill()
                    kills.append((time.monotonic(), 0))
                    await run.process.wait()
                    # Now, since on a slow machine the first may have left the window by the end.
                    kept |= {each.order: each for each in in_window(redis_url, all_sent(players))}
                    continue
                for each in players:
                    await each.turn.acquire()
                await trio.sleep(0.5)
                sent = all_sent(players)
                kept |= {each.order: each for each in in_window(redis_url, sent)}
                lost = {each.order for each in sent} - kept.keys()
                excused = {
                    each.order
                    for each in sent
                    if any(killed - MARGIN < each.sent_at < connected for killed, connected in kills)
                }
                assert lost <= excused, f"{len(lost - excused)} lost that were sent in time"
                await rows_are_right(postgres_dsn, list(kept.values()), INTERVAL)
                for each in players:
                    each.turn.release()


@pytest.mark.parametrize("left", [1, 2])
async def test_killed_and_started_with_fewer_symbols_and_exchanges(
    left: int, redis_url: str, postgres_dsn: str, tmp_path: Path
) -> None:
    """The rows that were due are written all the same; nobody is told of what is not configured."""
    interval = 6_000
    async with exchanges("exchange1", "exchange2") as players:
        async with program(players, redis_url, postgres_dsn, tmp_path, "first", interval=interval) as run:
            await eventually(lambda: all(each.connected for each in players), within=20)
            # Bars of others, and what only looks like them.
            meddle_with(redis_url)
            async with playing(*players):
                await trio.sleep(interval / 1_000 - now_ms() % interval / 1_000 + 1.5)
            await trio.sleep(0.5)
            run.process.kill()
            await run.process.wait()
        kept = in_window(redis_url, all_sent(players))
        assert {(each.exchange, each.symbol) for each in kept} == {
            (each.name, symbol) for each in players for symbol in BASE
        }
        async with program(
            players[:left],
            redis_url,
            postgres_dsn,
            tmp_path,
            "second",
            symbols=["BTCUSDT"],
            interval=interval,
        ) as run:
            await eventually(run.url, within=20)
            url = run.url()
            assert url
            await rows_are_right(postgres_dsn, kept, interval, within=15)
            assert (await http(url, "GET", "/prices/latest/DOGEUSDT")).status == 404
            health = (await http(url, "GET", "/health")).body
            assert set(health["exchanges"]) == {each.name for each in players[:left]} | {
                "test1",
                "test2",
                "test3",
            }
            assert health["redis"]["status"] == health["postgres"]["status"] == "up"
        assert meddle_with(redis_url) == 0


def meddle_with(redis_url: str) -> int:
    """Put keys into Redis that are not ours, but named like bars; returns how many were not as they are."""
    with redis.Redis.from_url(redis_url) as client:
        return sum(
            [
                client.hset("bars:shop:OPENING", mapping={"monday": "9-17", "5:am": "closed"}),
                client.hset("bars:exchange1:BTCUSDT:1m", "1795343351:a", "[1]"),
                client.hset("bars:exchange9:lower", "1795343351:a", "[1]"),
                client.sadd("bars:exchange9:ETHUSDT", "chocolate"),
                client.set("bars:exchange9:SOLUSDT", "1", get=True) != b"1",
                client.set("bars:", "1", get=True) != b"1",
            ]
        )


async def test_stopped_with_redis_away(own_redis: EmbeddedRedis, postgres_dsn: str, tmp_path: Path) -> None:
    """The bars of open minutes are spooled; the next start brings them in, and removes the spool."""
    async with exchanges("exchange1") as players:
        settings = settings_for(
            players, own_redis.url, postgres_dsn, tmp_path, aggregation={"interval": 3_000}
        )
        async with service(settings, players) as it:
            async with playing(*players):
                await eventually(lambda: it.updates.cached > 20)
                own_redis.kill()
                await trio.sleep(0.5)
            await it.received_all()  # What is on its way when it stops is not.
        assert len(spools(tmp_path)) == 1
        async with service(settings, players) as it:
            async with playing(*players):
                await trio.sleep(0.3)
                assert spools(tmp_path), "no store has it yet"
                own_redis.start()
                await eventually(lambda: not spools(tmp_path), within=3)
                await trio.sleep(0.3)
            await it.received_all()
        assert not spools(tmp_path)
        # Not even the spool is left: all of it is in Redis now.
        async with service(settings, players):
            await rows_are_right(postgres_dsn, all_sent(players), 3_000)


async def test_stopped_with_both_stores_hanging(
    own_redis: EmbeddedRedis, own_postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    """It ends within `shutdown_timeout`, and what it knew is in the rows after the next start."""
    async with exchanges("exchange1") as players:
        settings = settings_for(players, own_redis.url, own_postgres.dsn, tmp_path)
        started = 0.0
        async with service(settings, players, watched=False) as it, playing(*players):
            await eventually(lambda: it.updates.cached > 20)
            own_redis.pause()
            own_postgres.pause()
            await trio.sleep(0.3)
            await it.received_all()
            started = trio.current_time()
        took = trio.current_time() - started
        own_redis.resume()
        own_postgres.resume()
        assert len(spools(tmp_path)) == 1
        assert took < 9.5
        async with service(settings, players):
            await rows_are_right(own_postgres.dsn, all_sent(players))
            await eventually(lambda: not spools(tmp_path), within=3)


async def test_a_second_service_on_the_same_stores(redis_url: str, postgres_dsn: str, tmp_path: Path) -> None:
    """It waits for the first for 10 s, and ends with a line that says why; the first is not disturbed."""
    async with exchanges("exchange1") as players:
        settings = settings_for(players, redis_url, postgres_dsn, tmp_path)
        async with service(settings, players) as it, playing(*players):
            async with program(players, redis_url, postgres_dsn, tmp_path, "second") as second:
                waiting = "another marketflow holds the database, waiting"
                await eventually(lambda: any(line["event"] == waiting for line in second.said()), within=20)
                started = trio.current_time()
                with trio.fail_after(20):
                    code = await second.process.wait()
            assert 9 < trio.current_time() - started < 14
            assert code == 1
            assert second.url() is None
            complaints = [line for line in second.log.read_text().splitlines() if not line.startswith("{")]
            assert complaints == ["marketflow: another marketflow is running on this database"]
            assert players[0].connections == 1, "the second has read nothing"
            assert (await it.get("/health"))["status"] == "ok"
            await rows_are_right(postgres_dsn, all_sent(players), until=now_ms() - 3_000)
