"""Kill -9, stops while no store takes anything, and a second service on the same stores."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import redis
import trio
from programs import INTERVAL, Program, program
from rig import (
    BASE,
    TICK,
    Exchange,
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
from slow_machine import SlowClock, within

from marketflow.embedded import EmbeddedPostgres, EmbeddedRedis
from tests.bench.starvation import Starvation, noted

KILLS = 3
ROUNDS = 2
RUN_SECONDS = 5.0
"""Seconds of each run that is killed; it is watched all the time."""
FLUSH_INTERVAL = 0.05
UNREAD = FLUSH_INTERVAL / 2
"""Seconds that a line may wait longer, unread, where the feed's beat and the flusher's do not meet."""
ON_THE_WAY = 0.025
"""Seconds from the exchange's record to the program, and from there to Redis: five times the usual."""
ALLOWED = FLUSH_INTERVAL + UNREAD + ON_THE_WAY
"""Seconds before a kill in which sent updates may be lost, if no process is starved."""
LOOK_EVERY = 0.02
FEWEST_LOOKS = 20
LOOK_BACK = 5.0
"""Seconds. An update that is missing for longer is an error in any case."""
MOST_BEHIND = 1.0
"""The most seconds that an exchange's timestamps are behind the time of sending."""


def in_window(url: str, sent: Sequence[Sent], *, complete: bool = True) -> list[Sent]:
    """The sent updates that Redis has, each once; if they are complete, checks that it has no others."""
    held: set[tuple[str, str, int, float]] = set()
    since = min((each.timestamp for each in sent), default=0)
    with redis.Redis.from_url(url) as client:
        for exchange, symbol in {(each.exchange, each.symbol) for each in sent}:
            key = f"prices:{exchange}:{symbol}"
            for member, score in client.zrangebyscore(key, since, "+inf", withscores=True):
                update = exchange, symbol, int(score), float(member.split(b":")[0])
                assert update not in held, "an update is there twice"
                held.add(update)
    found = [each for each in sent if (each.exchange, each.symbol, each.timestamp, each.price) in held]
    assert not complete or len(found) == len(held)
    return found


@attrs.define
class Exposure:
    """What a kill would lose at any moment: the age of the oldest update that Redis does not have."""

    players: Sequence[Exchange]
    client: redis.Redis
    starvation: Starvation
    since: float
    """Updates sent before this are ignored, since no client was connected."""
    looks: list[tuple[float, float]] = attrs.field(factory=list)
    """When the oldest missing update was sent, and when that was seen."""

    async def watch(self) -> None:
        """Take samples until cancelled."""
        while True:
            await self.look()
            await trio.sleep(LOOK_EVERY)

    async def look(self, at: float | None = None) -> float:
        """What a kill at this moment would cost, or one at that one did: all that was sent since then."""
        # In one thread, so that little time passes between reading the clock and reading Redis.
        began, held = await trio.to_thread.run_sync(self._held)
        at = began if at is None else at
        first = max(self.since, at - LOOK_BACK)
        recent = [each for each in all_sent(self.players) if first < each.sent_at <= at]
        oldest = min((each.sent_at for each in recent if each.price not in held), default=at)
        self.looks.append((oldest, at))
        return oldest

    def _held(self) -> tuple[float, set[float]]:
        """The prices, of which no two are equal, of what Redis holds; and when it was asked."""
        oldest = now_ms() - round((LOOK_BACK + MOST_BEHIND) * 1_000)
        with self.client.pipeline() as asked:
            for player, symbol in itertools.product(self.players, BASE):
                asked.zrangebyscore(f"prices:{player.name}:{symbol}", oldest, "+inf")
            began = time.monotonic()
            replies = asked.execute()
        return began, {float(member.split(b":")[0]) for reply in replies for member in reply}

    def check(self) -> None:
        """Nothing older than the promise was ever at stake."""
        assert len(self.looks) > FEWEST_LOOKS
        seen = ((at - oldest, self.starvation.between(oldest, at)) for oldest, at in self.looks)
        age, starved = max(seen, key=lambda each: each[0] - each[1])
        assert age - starved <= ALLOWED, (
            f"an update was not in Redis {age * 1e3:.0f} ms after it was sent, "
            f"of which somebody was starved for {starved * 1e3:.0f} ms; {ALLOWED * 1e3:.0f} ms are allowed"
        )


@asynccontextmanager
async def watched(
    run: Program, players: Sequence[Exchange], server: EmbeddedRedis, connected: float
) -> AsyncIterator[Exposure]:
    """Compare Redis with what was sent for RUN_SECONDS and a part of a second, then give the result."""
    pids = run.process.pid, server.pid
    with redis.Redis.from_url(server.url) as client, noted(lambda: pids) as starvation:
        exposure = Exposure(players, client, starvation, connected)
        with trio.move_on_after(RUN_SECONDS + random.random()):
            await exposure.watch()
        yield exposure


@pytest.mark.parametrize("number_of_round", range(ROUNDS))
async def test_killed_again_and_again(
    number_of_round: int, redis_server: EmbeddedRedis, redis_url: str, postgres_dsn: str, tmp_path: Path
) -> None:
    """Each kill -9 costs what was received in the last flush interval at most; else rows are right.

    A kill shows what it costs at one moment only. So Redis is compared with what was sent all the time: what
    is missing there a kill at that moment would have cost.
    """
    kills: list[tuple[float, float]] = []
    kept: dict[int, Sent] = {}
    async with exchanges("exchange1", "exchange2") as players, playing(*players, tick=TICK / 2):
        for number in range(KILLS):
            async with program(players, redis_url, postgres_dsn, tmp_path, f"run{number}") as run:
                connected = await _taken_up(players, redis_url)
                if kills:
                    kills[-1] = kills[-1][0], connected
                async with watched(run, players, redis_server, connected) as exposure:
                    run.process.kill()
                    killed = time.monotonic()
                    await run.process.wait()
                    kills.append((await exposure.look(killed), 0))
                exposure.check()
                # Checked now, since on a slow machine the first updates may have left the window by the end.
                kept |= {each.order: each for each in in_window(redis_url, all_sent(players))}
        async with program(players, redis_url, postgres_dsn, tmp_path, "last"):
            kills[-1] = kills[-1][0], await _taken_up(players, redis_url)
            for each in players:
                await each.turn.acquire()
            await trio.sleep(0.5)
            sent = all_sent(players)
            kept |= {each.order: each for each in in_window(redis_url, sent)}
            lost = {each.order for each in sent} - kept.keys()
            excused = {
                each.order
                for each in sent
                if any(since <= each.sent_at < connected for since, connected in kills)
            }
            assert lost <= excused, f"{len(lost - excused)} lost that were sent in time"
            await rows_are_right(postgres_dsn, list(kept.values()), INTERVAL)
            for each in players:
                each.turn.release()


@pytest.mark.parametrize("interval", [0.3, 0.8])
async def test_a_flusher_that_waits_is_found(
    redis_server: EmbeddedRedis, redis_url: str, postgres_dsn: str, tmp_path: Path, interval: float
) -> None:
    """The check itself: with another flush interval than the one that is promised for."""
    changes = {"PIPELINE__FLUSH_INTERVAL": f"{interval:g}s"}
    async with (
        exchanges("exchange1") as players,
        playing(*players, tick=TICK / 2),
        program(players, redis_url, postgres_dsn, tmp_path, "run", changes) as run,
    ):
        connected = await _taken_up(players, redis_url, 2 * interval)
        async with watched(run, players, redis_server, connected) as exposure:
            with pytest.raises(AssertionError, match=f"{ALLOWED * 1e3:.0f} ms are allowed"):
                exposure.check()


async def _taken_up(players: Sequence[Exchange], url: str, allowed: float = 2 * ALLOWED) -> float:
    """Wait until a new run has connected to all of them, and flushes; returns when it had connected."""
    await eventually(lambda: all(each.connected for each in players), within=20)
    connected = time.monotonic()

    def flushes() -> bool:
        now = time.monotonic()
        fresh = [each for each in all_sent(players) if connected < each.sent_at < now - allowed]
        return bool(fresh) and len(in_window(url, fresh, complete=False)) == len(fresh)

    await eventually(lambda: trio.to_thread.run_sync(flushes), within=20)
    return connected


@pytest.mark.parametrize("left", [1, 2])
async def test_killed_and_started_with_fewer_symbols_and_exchanges(
    left: int, redis_url: str, postgres_dsn: str, tmp_path: Path
) -> None:
    """Rows that were due are still written. Answers do not name what is not configured."""
    interval = 6_000
    async with exchanges("exchange1", "exchange2") as players:
        changes = {"AGGREGATION__INTERVAL": f"{interval // 1_000}"}
        async with program(players, redis_url, postgres_dsn, tmp_path, "first", changes) as run:
            await eventually(lambda: all(each.connected for each in players), within=20)
            # Bars of other boots, and keys that only look like bars.
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
            {**changes, "SYMBOLS": '["BTCUSDT"]'},
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
            await it.received_all()  # Updates on their way at the stop are not counted.
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
        # The spool is gone, since all of it is in Redis now.
        async with service(settings, players):
            await rows_are_right(postgres_dsn, all_sent(players), 3_000)


async def test_stopped_with_both_stores_hanging(
    own_redis: EmbeddedRedis, own_postgres: EmbeddedPostgres, tmp_path: Path, clock: SlowClock
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
            started = clock.seconds
        took = clock.seconds - started
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
                waiting = "lease on PostgreSQL awaited"
                await eventually(lambda: any(line["event"] == waiting for line in second.said()), within=20)
                started = trio.current_time()
                with within(14), trio.fail_after(40):
                    code = await second.process.wait()
            assert trio.current_time() - started > 9
            assert code == 1
            assert second.url() is None
            complaints = [line for line in second.log.read_text().splitlines() if not line.startswith("{")]
            assert complaints == ["marketflow: another marketflow is running on this database"]
            assert players[0].connections == 1, "the second has read nothing"
            assert (await it.get("/health"))["status"] == "ok"
            await rows_are_right(postgres_dsn, all_sent(players), until=now_ms() - 3_000)
