"""Redis answers, but with errors, too slowly, or on connections that do not last."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import trio
from outages import check_outage, check_whole, no_thread_left
from rig import (
    check_summary,
    eventually,
    exchanges,
    now_ms,
    playing,
    rows_are_right,
    service,
    settings_for,
)
from structlog.testing import capture_logs
from tcp_proxy import proxy

from marketflow.embedded import EmbeddedRedis

OUTAGE = 1.5
"""The length of an outage in seconds."""
BALLAST = 25
"""Keys of 2 MB, each a tenth of a second to load: in between Redis answers that it is loading."""


ERRORS = {"OOM": "maxmemory", "READONLY": "read only", "LOADING": "loading"}
"""The text that health shows for each error."""


@asynccontextmanager
async def refusing(how: str, server: EmbeddedRedis) -> AsyncIterator[None]:
    """Make Redis answer everything, or every write, with this error for so long."""
    with redis.Redis.from_url(server.url, socket_timeout=30) as client:
        match how:
            case "OOM":
                client.config_set("maxmemory", 1)
                yield
                client.config_set("maxmemory", 0)
            case "READONLY":
                client.replicaof("127.0.0.1", "1")
                yield
                client.replicaof("NO", "ONE")
            case _:
                client.config_set("rdbcompression", "no")
                client.config_set("key-load-delay", 100_000)
                for number in range(BALLAST):
                    client.setrange(f"ballast{number}", 2_100_000, b"x")
                async with trio.open_nursery() as nursery:
                    reload = partial(client.execute_command, "DEBUG", "RELOAD")
                    nursery.start_soon(trio.to_thread.run_sync, reload)
                    yield


@pytest.mark.parametrize("how", ERRORS)
async def test_redis_answers_by_errors(
    how: str, own_redis: EmbeddedRedis, postgres_dsn: str, tmp_path: Path
) -> None:
    """It counts as away, with the reason; nothing stalls, and all is restored within 2 s."""
    async with exchanges("exchange1", "exchange2") as players:
        settings = settings_for(players, own_redis.url, postgres_dsn, tmp_path, redis={"timeout": 600})
        async with service(settings, players) as it, playing(*players):
            await eventually(lambda: it.updates.cached > 50)
            async with refusing(how, own_redis):

                def told() -> bool:
                    state = it.running.report().redis
                    return state.status == "away" and ERRORS[how] in str(state.error)

                await eventually(told, within=2, what="away, and why")
                await check_outage(it, players, postgres_dsn, OUTAGE)
            await check_whole(it, own_redis.url, players)
        await rows_are_right(postgres_dsn, [s for p in players for s in p.sent], until=now_ms() - 2_000)
    await no_thread_left()


async def test_connections_to_redis_that_do_not_last(
    own_redis: EmbeddedRedis, postgres_dsn: str, tmp_path: Path
) -> None:
    """With connections closed every 100 ms, even during a write, each update is stored exactly once."""
    async with exchanges("exchange1") as players, proxy(own_redis.url) as between:
        settings = settings_for(players, between.url, postgres_dsn, tmp_path)
        async with service(settings, players) as it, playing(*players):
            await eventually(lambda: it.updates.cached > 20)
            for _ in range(20):
                await between.drop()
                accepted = it.updates.accepted
                await trio.sleep(0.1)
                # On a busy machine an exchange of the test may send nothing for longer than that.
                await eventually(lambda: it.updates.accepted > accepted, within=2)  # noqa: B023
            async with it.still() as sent:
                check_summary(await it.get("/prices/aggregate/BTCUSDT?period=1m"), sent)
            await check_whole(it, own_redis.url, players)
        await rows_are_right(postgres_dsn, players[0].sent, until=now_ms() - 2_000)
    await no_thread_left()


@pytest.mark.parametrize("timeout", [300, 1_500])
async def test_redis_takes_half_a_second_a_call(
    timeout: int, own_redis: EmbeddedRedis, postgres_dsn: str, tmp_path: Path
) -> None:
    """Within the time limit it is up but slow, otherwise away. Feeds, rows and answers do not wait for it."""
    async with exchanges("exchange1", "exchange2") as players, proxy(own_redis.url) as between:
        settings = settings_for(players, between.url, postgres_dsn, tmp_path, redis={"timeout": timeout})
        async with service(settings, players) as it, playing(*players):
            await eventually(lambda: it.updates.cached > 50)
            between.delay = 0.5
            if timeout < 500:
                await eventually(lambda: it.running.report().redis.status == "away", within=2)
                await check_outage(it, players, postgres_dsn, OUTAGE)
            else:
                await check_slow(it, players, postgres_dsn)
            between.delay = 0
            await check_whole(it, own_redis.url, players)
        await rows_are_right(postgres_dsn, [s for p in players for s in p.sent], until=now_ms() - 2_000)
    await no_thread_left()


async def check_slow(it: Any, players: Any, dsn: str) -> None:
    """For some seconds nothing stalls, and answers from any source come in time and are right."""
    until = trio.current_time() + 2 * OUTAGE
    while trio.current_time() < until:
        accepted = it.updates.accepted
        async with it.still() as sent:
            for path in (
                "/prices/aggregate/BTCUSDT?period=1m",
                "/prices/aggregate/exchange1/DOGEUSDT?period=2s",
            ):
                check_summary(await it.get(path), sent)
        await trio.sleep(0.2)
        await eventually(lambda: it.updates.accepted > accepted, within=2)  # noqa: B023
        # Writing rows waits for a flush, at most for the time limit, and reads bars.
        await rows_are_right(dsn, sent, until=now_ms() - 1_600 - 2_000, within=1.0)


async def test_a_flood_while_redis_is_slow(
    own_redis: EmbeddedRedis, postgres_dsn: str, tmp_path: Path
) -> None:
    """Backpressure reaches the exchange's socket: nothing is dropped, and no more waits than allowed."""
    limit = 1_000
    async with exchanges("exchange1", "exchange2", "exchange3") as players, proxy(own_redis.url) as between:
        flooding, calm, _ = players
        settings = settings_for(
            players,
            between.url,
            postgres_dsn,
            tmp_path,
            pipeline={"max_pending_updates": 3 * limit},
            redis={"timeout": 2_000},
        )
        async with service(settings, players) as it:
            await eventually(lambda: it.running.report().redis.status == "up")
            between.delay = 0.5
            for _ in range(8):
                await flooding.send(flooding.updates("BTCUSDT", *[now_ms()] * 500))
                await calm.send(calm.updates("DOGEUSDT", now_ms()))
            seen = set()
            until = trio.current_time() + 2
            while trio.current_time() < until:
                ledgers = it.running.report().exchanges
                seen.add(ledgers["exchange1"].updates.pending)
                await trio.sleep(0.02)
            assert ledgers["exchange2"].updates.accepted == 8, "one that floods stops the others"
            assert limit // 2 < max(seen) <= limit
            assert it.updates.accepted < 4_000, "pushed back"
            between.delay = 0
            await it.received_all()
            await eventually(lambda: it.updates.pending == 0)
            assert it.updates.cached == it.updates.accepted == 4_008


def acl(*commands: str) -> tuple[list[str], list[str]]:
    """The commands that forbid these commands to all users, and that allow them again."""
    return [f"-{each}" for each in commands], [f"+{each}" for each in commands]


REFUSALS = {
    "ZADD": acl("zadd"),
    "HSET": acl("hset"),
    "EXPIRE": acl("expire"),
    "ZREMRANGEBYSCORE": acl("zremrangebyscore"),
    "HGETALL": acl("hgetall"),
    "PEXPIRE": acl("pexpire"),
    "all but SET": acl("zadd", "hset", "expire", "zremrangebyscore", "hdel"),
}


@pytest.mark.parametrize("refused", [*REFUSALS, "WRONGTYPE"])
async def test_redis_takes_the_marker_and_refuses_the_rest(
    refused: str, own_redis: EmbeddedRedis, postgres_dsn: str, tmp_path: Path
) -> None:
    """It is away, which is reported once; answers come from memory, and all is restored soon after."""
    key = "prices:exchange1:BTCUSDT"
    with redis.Redis.from_url(own_redis.url) as client:
        async with exchanges("exchange1") as players:
            settings = settings_for(players, own_redis.url, postgres_dsn, tmp_path)
            async with service(settings, players) as it, playing(*players):
                await eventually(lambda: it.updates.cached > 50)
                with capture_logs() as logs:
                    if refused == "WRONGTYPE":
                        client.set(key, "somebody's")
                    else:
                        client.execute_command("ACL", "SETUSER", "default", *REFUSALS[refused][0])
                    if refused == "HGETALL":  # It is only used when data may be missing.
                        client.delete("marketflow:marker")
                    await eventually(lambda: it.running.report().redis.status == "away", within=2)
                    await trio.sleep(3)
                    summary = await it.get("/prices/aggregate/BTCUSDT?period=1m")
                    assert summary["source"] == "memory"
                    assert it.running.report().redis.status == "away"
                told = [each["event"] for each in logs if each["log_level"] != "debug"]
                assert told.count("store away") == 1, told
                assert "store up" not in told
                assert len(told) < 5, told
                if refused == "WRONGTYPE":
                    client.delete(key)
                else:
                    client.execute_command("ACL", "SETUSER", "default", *REFUSALS[refused][1])
                await check_whole(it, own_redis.url, players)


async def test_a_user_of_redis_who_may_do_only_what_is_needed(
    own_redis: EmbeddedRedis, postgres_dsn: str, tmp_path: Path
) -> None:
    """Writes, questions, an emptied Redis, and the lease of a killed boot work with that user."""
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    rights = next(line for line in text.splitlines() if line.startswith("ACL SETUSER marketflow"))
    with redis.Redis.from_url(own_redis.url) as client:
        client.execute_command(*rights.replace("PASSWORD", "secret").split())
        client.set("marketflow:lock", "dead", px=20_000)
        async with exchanges("exchange1") as players:
            url = own_redis.url.replace("//", "//marketflow:secret@")
            settings = settings_for(players, url, postgres_dsn, tmp_path)
            async with service(settings, players) as it, playing(*players):
                await eventually(lambda: it.updates.cached > 20)
                await check_whole(it, own_redis.url, players)
                client.flushall()
                await check_whole(it, own_redis.url, players)
                await trio.sleep(1)
                assert it.running.report().redis.status == "up"
        assert client.get("marketflow:lock") is None
        denied = {entry["object"] for entry in client.acl_log()}
        # Redis 6.2 does not log subcommands.
        assert denied <= {"config|get", "client|setinfo", "client"}
