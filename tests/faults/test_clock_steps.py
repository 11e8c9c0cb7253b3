"""The wall clock steps, on our machine alone or on all: no accepted update comes to harm."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
import redis
import trio
from rig import (
    all_sent,
    check_summary,
    differences,
    eventually,
    exchanges,
    expected_rows,
    now_ms,
    playing,
    rows_are_right,
    service,
    settings_for,
    stored_rows,
    window_is_whole,
)

from marketflow.domain.periods import DAY, HOUR, MINUTE, SECOND, floor_to

INTERVAL = 1_000


class SteppingClock:
    """The wall clock plus an offset (ms) that the test sets."""

    def __init__(self) -> None:
        self.offset = 0

    def now(self) -> int:
        return now_ms() + self.offset


async def test_all_clocks_step_and_are_set_right(redis_url: str, postgres_dsn: str, tmp_path: Path) -> None:
    """If exchanges step with us, every update is accepted and in its row, and the window loses none."""
    clock = SteppingClock()
    async with exchanges("exchange1") as players:
        settings = settings_for(
            players, redis_url, postgres_dsn, tmp_path, aggregation={"interval": INTERVAL, "grace": 100}
        )
        async with service(settings, players, clock=clock) as it:
            async with playing(*players, clock=clock.now):
                for offset in (0, HOUR, 0, -HOUR, 0, 90 * SECOND, 0):
                    async with it.still():
                        clock.offset = offset
                    await trio.sleep(0.8)
                async with it.still() as sent:
                    check_summary(await it.get("/prices/aggregate/BTCUSDT?period=1s"), sent)
            # Every accepted update is in the window once its time has come (again).
            clock.offset = HOUR + 10 * SECOND
            await rows_are_right(postgres_dsn, all_sent(players), INTERVAL)
            clock.offset = 0
            await trio.sleep(0.6)  # longer than the time between two trims
            # There may be updates of the future; of the last minute none is missing.
            since = floor_to(now_ms() - 50_000, SECOND)
            await window_is_whole(redis_url, players, within=1, since=since)
            assert it.updates.accepted == len(all_sent(players))
            assert not it.updates.dropped


async def test_our_clock_alone_steps(redis_url: str, postgres_dsn: str, tmp_path: Path) -> None:
    """Until it is corrected, updates are rejected and counted as late or future; stored data stays."""
    clock = SteppingClock()
    async with exchanges("exchange1") as players:
        settings = settings_for(
            players, redis_url, postgres_dsn, tmp_path, aggregation={"interval": INTERVAL, "grace": 100}
        )
        async with service(settings, players, clock=clock) as it:
            for step, reason in ((HOUR, "late"), (-HOUR, "future")):
                async with playing(*players):
                    await trio.sleep(0.6)
                await it.received_all()
                clock.offset = step
                await players[0].send(players[0].updates("BTCUSDT", *[now_ms()] * 7))
                await eventually(lambda reason=reason: it.updates.rejected.get(reason) == 7)
                await trio.sleep(1.2)
                clock.offset = 0
                del players[0].sent[-7:]
            async with playing(*players):
                await trio.sleep(0.5)
            await it.received_all()
            await window_is_whole(redis_url, players, within=2)
            await rows_are_right(postgres_dsn, all_sent(players), INTERVAL)


async def test_retention_does_not_believe_a_step(redis_url: str, postgres_dsn: str, tmp_path: Path) -> None:
    """Rows that look old only to a wrong clock are not deleted."""
    clock = SteppingClock()
    async with exchanges("exchange1") as players:
        settings = settings_for(
            players,
            redis_url,
            postgres_dsn,
            tmp_path,
            aggregation={"interval": INTERVAL, "grace": 100, "retention": 30 * MINUTE},
        )
        async with service(settings, players):
            with psycopg.connect(postgres_dsn, autocommit=True) as connection:
                connection.execute(
                    "INSERT INTO price_aggregates VALUES ('BTCUSDT', 'exchange1', now() - interval '1 h',"
                    " 1, 1, 1, 1, 1, now(), now(), 1)"
                )
        async with service(settings, players, clock=clock) as it:
            await players[0].send(players[0].updates("BTCUSDT", now_ms() - 2_000))
            await rows_are_right(postgres_dsn, all_sent(players), INTERVAL)
            for _ in range(2):
                # Old rows are deleted once an hour, by any clock.
                clock.offset += HOUR
                await trio.sleep(1.2)
            # Only the old row is gone.
            assert not differences(stored_rows(postgres_dsn), expected_rows(all_sent(players), INTERVAL))
            assert it.running.report().postgres.status == "up"


@pytest.mark.parametrize("wrong_from_the_start", [False, True])
async def test_a_clock_that_stays_days_ahead_deletes_nothing(
    redis_url: str,
    postgres_dsn: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wrong_from_the_start: bool,
) -> None:
    """Even if a step lasts long enough to be accepted, rows and bars stay, since the data has not moved."""
    monkeypatch.setattr("marketflow.app.instruments.clocks.DOUBT", 300)
    clock = SteppingClock()
    async with exchanges("exchange1") as players:
        settings = settings_for(
            players,
            redis_url,
            postgres_dsn,
            tmp_path,
            window={"length": 1_000},
            aggregation={"interval": INTERVAL, "grace": 100, "retention": DAY},
        )
        async with service(settings, players) as it:
            async with playing(*players):
                await trio.sleep(1.5)
            await it.received_all()
            await rows_are_right(postgres_dsn, all_sent(players), INTERVAL)
        bars = stored_bars(redis_url)
        assert len(bars) > 2
        clock.offset = 3 * DAY if wrong_from_the_start else 0
        async with service(settings, players, clock=clock) as it:
            await trio.sleep(0.5)
            clock.offset = 3 * DAY
            await players[0].send(players[0].updates("BTCUSDT", *[now_ms()] * 7))
            await eventually(lambda: it.updates.rejected.get("late") == 7)
            await trio.sleep(2.5)
            del players[0].sent[-7:]
            assert stored_bars(redis_url) >= bars
            await rows_are_right(postgres_dsn, all_sent(players), INTERVAL)
            clock.offset = 0
            async with playing(*players):
                await trio.sleep(1)
            await eventually(lambda: it.updates.accepted == len(all_sent(players)) - it.before)
            assert stored_bars(redis_url) >= bars
            await rows_are_right(postgres_dsn, all_sent(players), INTERVAL)


def stored_bars(redis_url: str) -> set[tuple[bytes, bytes, bytes]]:
    """Key, field and value of each bar in Redis."""
    with redis.Redis.from_url(redis_url) as client:
        return {
            (key, field, value)
            for key in client.scan_iter("bars:*")
            for field, value in client.hgetall(key).items()
        }
