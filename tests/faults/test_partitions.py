"""The network to a store loses one direction; or the service's tasks are cancelled."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
from outages import check_whole
from rig import (
    all_sent,
    check_ledger,
    eventually,
    exchanges,
    now_ms,
    playing,
    rows_are_right,
    service,
    settings_for,
    spools,
    window_is_whole,
)
from tcp_proxy import proxy

from marketflow.app.ports import StoreTaken
from marketflow.embedded import EmbeddedRedis
from marketflow.service import Running, serve

NO_POSTGRES = "postgresql://u@127.0.0.1:1/none"
LOST_SECONDS = 2.0


@pytest.mark.parametrize("direction", ["requests", "answers"])
async def test_the_network_to_redis_loses_one_direction(
    direction: str, own_redis: EmbeddedRedis, postgres_dsn: str, tmp_path: Path
) -> None:
    """With open connections but no answers Redis is away in time; afterwards each update is stored once."""
    async with exchanges("exchange1") as players, proxy(own_redis.url) as between:
        settings = settings_for(players, between.url, postgres_dsn, tmp_path, redis={"timeout": 500})
        async with service(settings, players) as it, playing(*players):
            await eventually(lambda: it.updates.cached > 20)
            between.losing.value = direction
            await eventually(lambda: it.running.report().redis.status == "away", within=3)
            accepted = it.updates.accepted
            await trio.sleep(LOST_SECONDS)
            assert it.updates.accepted > accepted, "the feeds stall"
            between.losing.value = None
            await eventually(lambda: it.running.report().redis.status == "up", within=3)
            await check_whole(it, own_redis.url, players)
        await rows_are_right(postgres_dsn, players[0].sent, until=now_ms() - 2_000)


@pytest.mark.parametrize("direction", ["requests", "answers"])
async def test_the_network_to_postgres_loses_one_direction(
    direction: str, redis_url: str, postgres_dsn: str, tmp_path: Path
) -> None:
    """The lock may stay with a useless connection of ours: the service takes it over from itself."""
    async with exchanges("exchange1") as players, proxy(postgres_dsn) as between:
        settings = settings_for(players, redis_url, between.url, tmp_path, postgres={"timeout": 800})
        async with service(settings, players) as it, playing(*players):
            await eventually(lambda: it.running.report().postgres.status == "up")
            between.losing.value = direction
            await eventually(lambda: it.running.report().postgres.status == "away", within=5)
            await trio.sleep(LOST_SECONDS)
            between.losing.value = None
            await eventually(lambda: it.running.report().postgres.status == "up", within=10)
            async with it.still() as sent:
                await rows_are_right(postgres_dsn, sent, until=now_ms() - 1_600, within=5)


@pytest.mark.parametrize("direction", ["requests", "answers"])
async def test_one_that_no_answer_reached_while_another_took_over_ends(
    direction: str, own_redis: EmbeddedRedis, postgres_dsn: str, tmp_path: Path
) -> None:
    """Only the first service's network loses a direction; the second takes over the lease and keeps it."""
    taken = trio.Event()
    async with exchanges("exchange1") as players, proxy(own_redis.url) as between:
        first = settings_for(players, between.url, NO_POSTGRES, tmp_path / "1", redis={"timeout": 500})
        second = settings_for(players, own_redis.url, postgres_dsn, tmp_path / "2", redis={"timeout": 500})

        async def run_first(task_status: trio.TaskStatus[Running]) -> None:
            with pytest.RaisesGroup(StoreTaken, flatten_subgroups=True, allow_unwrapped=True):
                await serve(first, trio.Event(), task_status=task_status)
            taken.set()

        async with trio.open_nursery() as nursery:
            before: Running = await nursery.start(run_first)
            await eventually(lambda: before.report().redis.status == "up")
            between.losing.value = direction
            await eventually(lambda: before.report().redis.status == "away", within=3)
            async with service(second, players, all_received=False) as it:
                await eventually(
                    lambda: players[0].connections == 2
                )  # It sends only to the newest connection.
                async with playing(*players):
                    await eventually(lambda: it.running.report().redis.status == "up", within=12)
                    between.losing.value = None
                    with trio.fail_after(20):
                        await taken.wait()
                    # Data that the first had sent may arrive now, and the second then checks who sent it.
                    await eventually(lambda: it.running.report().redis.status == "up", within=5)
                    await window_is_whole(own_redis.url, players, within=3)


@pytest.mark.parametrize("seconds", [0.3, 1.1, 2.6])
async def test_a_service_that_is_cancelled_keeps_what_no_store_has(
    seconds: float, redis_url: str, postgres_dsn: str, tmp_path: Path
) -> None:
    """As if one of its tasks failed: accepted updates are stored or spooled, and the next start continues."""
    async with exchanges("exchange1") as players:
        settings = settings_for(players, redis_url, postgres_dsn, tmp_path)
        async with trio.open_nursery() as nursery:
            running: Running = await nursery.start(partial(serve, settings, trio.Event()))
            async with playing(*players):
                await eventually(lambda: running.report().updates.cached > 0)
                await trio.sleep(seconds)  # at different moments of an interval
            await eventually(lambda: running.report().updates.accepted == len(all_sent(players)))
            nursery.cancel_scope.cancel()
        report = running.report().updates
        check_ledger(attrs.asdict(report))
        assert report.pending == 0
        async with service(settings, players) as it, playing(*players):
            await eventually(lambda: it.updates.cached > 20)
            await eventually(lambda: not spools(tmp_path), within=10)
            await trio.sleep(2)  # until the interval of the cancellation is over
        await rows_are_right(postgres_dsn, all_sent(players), until=now_ms() - 2_000, within=5)
