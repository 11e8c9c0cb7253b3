"""Two services never write to one Redis; a killed service does not block the next one for long."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
import redis
import trio
from rig import (
    Exchange,
    Service,
    eventually,
    exchanges,
    now_ms,
    playing,
    service,
    settings_for,
    window_is_whole,
)
from slow_machine import slow_clock, within

from marketflow.adapters.cache.members import read_sequence
from marketflow.app.ports import StoreTaken
from marketflow.config import Settings
from marketflow.embedded import EmbeddedRedis
from marketflow.service import serve

sys.path.append(str(Path(__file__).parents[1] / "e2e"))

from program import Program, program

LOCK = "marketflow:lock"
NO_POSTGRES = "postgresql://u@127.0.0.1:1/none"


@asynccontextmanager
async def another_database(dsn: str) -> AsyncIterator[str]:
    """Another database on the same server."""
    name = "another"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name}")
        yield dsn.rpartition("/")[0] + f"/{name}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def taken(settings: Settings) -> tuple[float, str]:
    """Start a service that must refuse to start; returns the seconds that it took, and the message."""
    began = trio.current_time()
    taken = pytest.RaisesGroup(StoreTaken, flatten_subgroups=True, allow_unwrapped=True)
    with within(13), taken as caught:
        await serve(settings, trio.Event())
    error = caught.value
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return trio.current_time() - began, str(error)


@pytest.mark.parametrize("databases", ["away", "one each"])
async def test_a_second_service_on_one_redis_does_not_start(
    databases: str, redis_url: str, postgres_dsn: str, tmp_path: Path
) -> None:
    """PostgreSQL cannot detect it. The first service is not affected, and nothing is counted twice."""
    async with exchanges("exchange1") as players, another_database(postgres_dsn) as other:
        first = NO_POSTGRES if databases == "away" else postgres_dsn
        second = NO_POSTGRES if databases == "away" else other
        settings = settings_for(players, redis_url, first, tmp_path)
        async with service(settings, players) as it, playing(*players):
            await eventually(lambda: it.updates.cached > 20)
            took, said = await taken(settings_for(players, redis_url, second, tmp_path / "second"))
            assert took > 9
            assert "another marketflow is running on this Redis" in said
            assert it.running.report().redis.status == "up"
            await window_is_whole(redis_url, players, within=2)


async def test_a_boot_begins_when_it_holds_the_stores(redis_url: str, tmp_path: Path) -> None:
    """It does not begin with its process: until then another boot accepts updates, with lower sequences."""
    async with exchanges("exchange1") as players:
        with redis.Redis.from_url(redis_url) as client:
            client.set(LOCK, "dead", px=2_500)
            expires = now_ms() + 2_000
            settings = settings_for(players, redis_url, NO_POSTGRES, tmp_path)
            async with service(settings, players) as it, playing(*players):
                await eventually(lambda: it.updates.cached > 0)
                members = client.zrange("prices:exchange1:BTCUSDT", 0, -1)
            sequences = [read_sequence(member.split(b":")[1]) for member in members]
            assert min(sequences) >= expires * 1_000


async def test_a_restart_in_order_waits_for_nothing(
    redis_url: str, postgres_dsn: str, tmp_path: Path
) -> None:
    """The lease is released after the last flush, with PostgreSQL or without."""
    async with exchanges("exchange1") as players:
        for dsn in (postgres_dsn, NO_POSTGRES, NO_POSTGRES):
            settings = settings_for(players, redis_url, dsn, tmp_path)
            async with service(settings, players) as it:
                up = await eventually(lambda it=it: it.running.report().redis.status == "up")
                assert up < 1
                async with playing(*players):
                    await eventually(lambda it=it: it.updates.cached > 10)
            with redis.Redis.from_url(redis_url) as client:
                assert client.get(LOCK) is None


async def ends_taken(
    settings: Settings, players: list[Exchange], then: Callable[[Service], None], limit: float = 2.0
) -> None:
    """Run a service until a given event makes it end with StoreTaken."""
    happened = 0.0
    with slow_clock() as clock, pytest.RaisesGroup(StoreTaken, flatten_subgroups=True):
        async with service(settings, players, watched=False, all_received=False) as it:
            await eventually(lambda: it.running.report().redis.status == "up")
            then(it)
            happened = clock.seconds
            await trio.sleep(20)
    # Closing the clients' connections takes a moment.
    assert clock.seconds - happened < limit + 1.5


async def test_another_boot_in_the_lock_ends_a_running_service(redis_url: str, tmp_path: Path) -> None:
    """With PostgreSQL's lock the service would wait until that boot writes: it may be dead."""
    async with exchanges("exchange1") as players:
        settings = settings_for(players, redis_url, NO_POSTGRES, tmp_path)
        with redis.Redis.from_url(redis_url) as client:
            await ends_taken(settings, players, lambda _: client.set(LOCK, "other", px=5_000))
            assert client.get(LOCK) == b"other"


async def test_an_emptied_redis_is_held_again(redis_url: str, postgres_dsn: str, tmp_path: Path) -> None:
    async with exchanges("exchange1") as players:
        settings = settings_for(players, redis_url, postgres_dsn, tmp_path)
        with redis.Redis.from_url(redis_url) as client:
            async with service(settings, players) as it, playing(*players):
                await eventually(lambda: it.updates.cached > 20)
                holder = client.get(LOCK)
                for _ in range(3):
                    client.flushall()
                    await window_is_whole(redis_url, players, within=2)
                    assert client.get(LOCK) == holder is not None


async def test_a_redis_that_comes_back_with_the_hold_of_the_boot_before(
    own_redis: EmbeddedRedis, postgres_dsn: str, tmp_path: Path
) -> None:
    """A snapshot with the lease of a boot that we know to be dead does not end the service."""
    async with exchanges("exchange1") as players:
        settings = settings_for(players, own_redis.url, postgres_dsn, tmp_path)
        with redis.Redis.from_url(own_redis.url) as client:
            client.set(LOCK, "dead", px=6_000)
            client.set("marketflow:marker", "dead:7")
            client.save()
        async with service(settings, players) as it, playing(*players):
            # It got the database's lock, and the marker stood still.
            await eventually(lambda: it.updates.cached > 20, within=5)
            own_redis.kill()
            own_redis.start()
            await eventually(lambda: it.running.report().redis.status == "away")
            await eventually(lambda: it.running.report().redis.status == "up", within=8)
            await window_is_whole(own_redis.url, players, within=2)


async def test_two_that_start_while_redis_is_away(own_redis: EmbeddedRedis, tmp_path: Path) -> None:
    """They cannot detect each other until Redis is back; then one gets the lease, and the other ends."""
    async with exchanges("exchange1") as players:
        own_redis.kill()
        ended: list[str] = []

        async def run(name: str) -> None:
            settings = settings_for(players, own_redis.url, NO_POSTGRES, tmp_path / name)
            try:
                await serve(settings, stopping)
            except* StoreTaken as group:
                ended.append(str(group.exceptions))

        stopping = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, "first")
            nursery.start_soon(run, "second")
            await eventually(lambda: players[0].connections == 2)
            own_redis.start()
            await eventually(lambda: ended, within=14)
            await trio.sleep(1)
            assert len(ended) == 1
            stopping.set()


# ---- the real program ----


@asynccontextmanager
async def run_program(
    directory: Path, players: list[Exchange], redis_url: str, dsn: str
) -> AsyncIterator[Program]:
    directory.mkdir()  # noqa: ASYNC240 - at once
    environment = {
        "EXCHANGES": [{"name": each.name, "host": "127.0.0.1", "port": each.port} for each in players],
        "SYMBOLS": ["BTCUSDT", "DOGEUSDT"],
        "HTTP__PORT": "0",
        "REDIS__URL": redis_url,
        "POSTGRES__DSN": dsn,
        "STATE_DIR": str(directory),
    }
    async with program(directory, "serve", "--log-format", "json", environment=environment) as run:
        yield run


@pytest.mark.parametrize(("postgres", "limit"), [(True, 4.0), (False, 6.5)])
async def test_a_start_right_after_a_kill(
    postgres: bool, limit: float, redis_url: str, postgres_dsn: str, tmp_path: Path
) -> None:
    """With PostgreSQL it waits until the marker has stood still for 1.5 s, else until the lease expires."""
    dsn = postgres_dsn if postgres else NO_POSTGRES
    async with exchanges("exchange1") as players:
        async with run_program(tmp_path / "first", players, redis_url, dsn) as run:
            await run.logged("window whole")
            run.signal(signal.SIGKILL)
            await run.ended()
        async with run_program(tmp_path / "second", players, redis_url, dsn) as run:
            await run.logged("starting")
            with within(limit):
                await run.serving()
            await run.logged("window whole", within=2)
            await run.stopped()


async def test_one_that_was_frozen_while_another_took_over_ends(
    redis_url: str, postgres_dsn: str, tmp_path: Path
) -> None:
    """It writes nothing more, since the lease is not its own any more."""
    async with (
        exchanges("exchange1") as players,
        run_program(tmp_path / "first", players, redis_url, NO_POSTGRES) as frozen,
    ):
        await frozen.logged("window whole")
        frozen.signal(signal.SIGSTOP)
        async with run_program(tmp_path / "second", players, redis_url, postgres_dsn) as second:
            await second.serving()
            await second.logged("window whole")
            await trio.sleep(6)
            frozen.signal(signal.SIGCONT)
            assert await frozen.ended(within=3.5) == 1
            assert "another marketflow is running on this Redis" in frozen.stderr
            events = [each["event"] for each in second.events]
            assert "store away" not in events[events.index("window whole") :]
            await second.stopped()


async def test_a_stop_while_it_waits_for_the_hold_is_at_once(
    redis_url: str, postgres_dsn: str, tmp_path: Path
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set(LOCK, "other", px=30_000)
        async with (
            exchanges("exchange1") as players,
            run_program(tmp_path / "run", players, redis_url, postgres_dsn) as run,
        ):
            await run.logged("lease on Redis awaited")
            before = client.dbsize()
            run.signal(signal.SIGTERM)
            assert await run.ended(within=4) == 0
            assert client.dbsize() == before
            assert client.get(LOCK) == b"other"
