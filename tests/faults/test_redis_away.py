"""Redis away: nothing stalls, answers stay right, and the window is restored when it is back."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import redis
import trio
from outages import check_outage, check_up, check_whole
from rig import (
    check_summary,
    eventually,
    exchanges,
    now_ms,
    playing,
    rows_are_right,
    service,
    settings_for,
    window_is_whole,
)
from slow_machine import SlowClock, within

from marketflow.embedded import EmbeddedRedis

OUTAGE = 2.0
"""The length of an outage in seconds."""


@pytest.mark.parametrize("how", ["with data", "empty", "paused"])
async def test_redis_comes_back(
    how: str, own_redis: EmbeddedRedis, postgres_dsn: str, tmp_path: Path
) -> None:
    """Stopped and started with its data, killed and started empty, or frozen (so writes are ambiguous)."""
    async with exchanges("exchange1", "exchange2") as players:
        settings = settings_for(players, own_redis.url, postgres_dsn, tmp_path, redis={"timeout": 300})
        async with service(settings, players) as it, playing(*players):
            await eventually(lambda: it.updates.cached > 100)
            match how:
                case "with data":
                    await trio.to_thread.run_sync(own_redis.stop)
                case "empty":
                    own_redis.kill()
                case "paused":
                    own_redis.pause()
            await eventually(lambda: it.running.report().redis.status == "away", within=1.5)
            await check_outage(it, players, postgres_dsn, OUTAGE)
            if how == "paused":
                own_redis.resume()
            else:
                own_redis.start()
            await check_whole(it, own_redis.url, players)
        await rows_are_right(postgres_dsn, [s for p in players for s in p.sent], until=now_ms() - 2_000)


async def test_redis_is_emptied_under_a_live_connection(
    own_redis: EmbeddedRedis, postgres_dsn: str, tmp_path: Path
) -> None:
    """The service notices by itself, even without new updates, and restores everything."""
    async with exchanges("exchange1") as players:
        settings = settings_for(players, own_redis.url, postgres_dsn, tmp_path)
        async with service(settings, players) as it:
            with redis.Redis.from_url(own_redis.url) as client:
                async with playing(*players):
                    await eventually(lambda: it.updates.cached > 50)
                    client.flushall()
                    await window_is_whole(own_redis.url, players, within=2)
                    await check_up(it, players)
                client.flushall()
                await trio.sleep(1.2)
                await window_is_whole(own_redis.url, players, within=1)
                await check_up(it, players)
                assert it.updates.cached == it.updates.accepted


async def test_redis_comes_back_with_what_it_had_some_time_ago(
    own_redis: EmbeddedRedis, postgres_dsn: str, tmp_path: Path
) -> None:
    """After a kill it has a snapshot: the marker exists, but updates are missing."""
    async with exchanges("exchange1") as players:
        settings = settings_for(players, own_redis.url, postgres_dsn, tmp_path)
        async with service(settings, players) as it, playing(*players):
            await eventually(lambda: it.updates.cached > 20)
            with redis.Redis.from_url(own_redis.url) as client:
                client.save()
            await trio.sleep(1.5)
            own_redis.kill()
            own_redis.start()
            await window_is_whole(own_redis.url, players, within=2.5)
            await check_up(it, players)


async def test_a_flood_while_redis_is_away(
    own_redis: EmbeddedRedis, postgres_dsn: str, tmp_path: Path
) -> None:
    """Memory is bounded, drops are counted, the newest survive, and other exchanges are not affected."""
    limit = 1_000
    async with exchanges("exchange1", "exchange2", "exchange3") as players:
        flooding, calm, _ = players
        settings = settings_for(
            players, own_redis.url, postgres_dsn, tmp_path, pipeline={"max_pending_updates": 3 * limit}
        )
        async with service(settings, players) as it:
            await eventually(lambda: it.running.report().redis.status == "up")
            own_redis.pause()
            # Updates in flight when Redis goes away are the oldest, and must not use up the whole buffer.
            await flooding.send(flooding.updates("BTCUSDT", *[now_ms()] * 600))
            await trio.sleep(0.1)
            for _ in range(20):
                await flooding.send(flooding.updates("BTCUSDT", *[now_ms()] * 500))
                await calm.send(calm.updates("DOGEUSDT", now_ms()))
                await trio.sleep(0.02)
            await it.received_all()
            ledgers = it.running.report().exchanges
            assert ledgers["exchange1"].updates.pending <= limit
            assert ledgers["exchange1"].updates.dropped["overflow"] >= 10_000 - limit
            assert ledgers["exchange2"].updates.pending == 20
            own_redis.resume()
            await eventually(lambda: it.updates.pending == 0, within=2)
            with redis.Redis.from_url(own_redis.url) as client:
                held = {
                    float(member.split(b":")[0])
                    for member in client.zrange("prices:exchange1:BTCUSDT", 0, -1)
                }
                assert client.zcard("prices:exchange2:DOGEUSDT") == 20
            newest = [each.price for each in flooding.sent][-limit // 2 :]
            assert held >= set(newest)
            async with it.still() as sent:
                await trio.sleep(1)  # answers in whole seconds end with the last whole second
                check_summary(await it.get("/prices/aggregate/BTCUSDT?period=1m"), sent)
                check_summary(await it.get("/prices/aggregate/exchange1/BTCUSDT?period=5s"), sent)
            await rows_are_right(postgres_dsn, sent)


async def test_what_replay_memory_does_not_hold_is_not_made_up(
    own_redis: EmbeddedRedis, postgres_dsn: str, tmp_path: Path
) -> None:
    """The newest updates are restored; bars show what is missing, so answers stay right."""
    async with exchanges("exchange1") as players:
        settings = settings_for(
            players, own_redis.url, postgres_dsn, tmp_path, window={"replay_memory": 40_000}
        )
        async with service(settings, players) as it:
            for _ in range(10):
                await players[0].send(players[0].updates("BTCUSDT", *[now_ms()] * 100))
                await trio.sleep(0.1)
            await eventually(lambda: it.updates.cached == 1_000)
            own_redis.kill()
            own_redis.start()
            await trio.sleep(1)
            await eventually(lambda: it.running.report().redis.status == "up", within=2)
            with redis.Redis.from_url(own_redis.url) as client:
                await eventually(lambda: client.zcard("prices:exchange1:BTCUSDT"), within=1)
                held = {
                    float(member.split(b":")[0])
                    for member in client.zrange("prices:exchange1:BTCUSDT", 0, -1)
                }
            sent = [each.price for each in players[0].sent]
            assert 100 <= len(held) <= 700  # 40,000 bytes of 65 or less
            assert held == set(sent[-len(held) :])
            for period in ("2s", "1m"):
                check_summary(await it.get(f"/prices/aggregate/BTCUSDT?period={period}"), players[0].sent)


async def test_many_questions_while_redis_hangs(
    own_redis: EmbeddedRedis, postgres_dsn: str, tmp_path: Path
) -> None:
    """Many concurrent questions share the time limit instead of waiting one after the other."""
    async with exchanges("exchange1") as players:
        settings = settings_for(players, own_redis.url, postgres_dsn, tmp_path, redis={"timeout": 500})
        async with service(settings, players, watched=False) as it:
            await players[0].send(players[0].updates("BTCUSDT", *[now_ms() - 2_000] * 100))
            await eventually(lambda: it.updates.cached == 100)
            await check_up(it, players)
            own_redis.pause()
            with within(4):
                async with trio.open_nursery() as nursery:
                    for _ in range(60):
                        nursery.start_soon(it.get, "/prices/aggregate/BTCUSDT?period=30s")
            own_redis.resume()


async def test_a_resolver_that_does_not_answer(
    own_redis: EmbeddedRedis,
    postgres_dsn: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    clock: SlowClock,
) -> None:
    """Redis is away, drops are counted, no feed stalls, and a stop is in time."""
    answers, real = threading.Event(), socket.getaddrinfo
    answers.set()

    def getaddrinfo(host: Any, *args: Any, **how: Any) -> Any:
        if host == "redis.example":
            answers.wait(30)
            host = "127.0.0.1"
        return real(host, *args, **how)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    url = own_redis.url.replace("127.0.0.1", "redis.example")
    limit = 500
    async with exchanges("exchange1") as players:
        settings = settings_for(
            players,
            url,
            postgres_dsn,
            tmp_path,
            pipeline={"max_pending_updates": limit},
            generator={"exchanges": ()},
        )
        async with service(settings, players) as it, playing(*players):
            await eventually(lambda: it.updates.cached > 20)
            answers.clear()
            own_redis.kill()
            await eventually(lambda: it.running.report().redis.status == "away", within=2)
            await players[0].send(players[0].updates("BTCUSDT", *[now_ms()] * 2 * limit))
            await check_outage(it, players, postgres_dsn, 3 * OUTAGE)
            assert it.updates.dropped["overflow"] > 0
            assert it.updates.pending <= limit
            own_redis.start()
            answers.set()
            await eventually(lambda: it.running.report().redis.status == "up", within=3)
            answers.clear()
            own_redis.kill()
            await eventually(lambda: it.running.report().redis.status == "away", within=2)
            await trio.sleep(1)
            began = clock.seconds
        assert clock.seconds - began < 5
    answers.set()
