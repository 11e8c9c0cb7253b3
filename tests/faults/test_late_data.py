"""Late updates: rows are rewritten within the promised time, and not too often."""

from __future__ import annotations

from pathlib import Path

import psycopg
import trio
from rig import (
    all_sent,
    eventually,
    exchanges,
    expected_rows,
    now_ms,
    rows_are_right,
    service,
    settings_for,
)

INTERVAL = 1_000
LATENESS = 8_000


async def test_rows_follow_late_updates_once_a_second_at_most(
    redis_url: str, postgres_dsn: str, tmp_path: Path
) -> None:
    """A steady flow of late updates costs one write a second; each update counts, and so do new extremes."""
    versions: list[str] = []
    async with exchanges("exchange1") as (player,):
        settings = settings_for(
            [player],
            redis_url,
            postgres_dsn,
            tmp_path,
            aggregation={"interval": INTERVAL, "grace": 100, "lateness": LATENESS},
        )
        async with service(settings, [player]) as it:
            closed = now_ms() // INTERVAL * INTERVAL - 2 * INTERVAL
            await player.send(player.updates("BTCUSDT", closed + 500))
            await rows_are_right(postgres_dsn, player.sent, INTERVAL)
            with psycopg.connect(postgres_dsn, autocommit=True) as connection:
                until = trio.current_time() + 2.2
                offset = 0
                while trio.current_time() < until:
                    # From the middle outwards, so that open and close change all the time.
                    offset += 1
                    await player.send(player.updates("BTCUSDT", closed + 500 - offset, closed + 500 + offset))
                    row = connection.execute(
                        "SELECT xmin::text, update_count FROM price_aggregates"
                        " WHERE timestamp = to_timestamp(%s)",
                        [(closed + INTERVAL) // 1_000],
                    ).fetchone()
                    assert row is not None
                    if row[0] not in versions:
                        versions.append(row[0])
                    await trio.sleep(0.03)
            await it.received_all()
            assert 2 <= len(versions) <= 4
            await rows_are_right(postgres_dsn, player.sent, INTERVAL)


async def test_too_late_is_rejected(redis_url: str, postgres_dsn: str, tmp_path: Path) -> None:
    """Past the lateness an update is counted as late and its row does not change; just before, it counts."""
    async with exchanges("exchange1") as (player,):
        settings = settings_for(
            [player],
            redis_url,
            postgres_dsn,
            tmp_path,
            aggregation={"interval": INTERVAL, "grace": 100, "lateness": LATENESS},
        )
        async with service(settings, [player]) as it:
            # In the middle of a second, so that no boundary passes on the way.
            await trio.sleep((1_300 - now_ms() % 1_000) % 1_000 / 1_000)
            boundary = now_ms() // INTERVAL * INTERVAL - LATENESS
            await player.send(player.updates("BTCUSDT", boundary, boundary + 1))
            await rows_are_right(postgres_dsn, player.sent, INTERVAL)
            right = expected_rows(player.sent, INTERVAL)
            await player.send(player.updates("BTCUSDT", boundary - 1, boundary - 2))
            await eventually(lambda: it.updates.rejected.get("late") == 2)
            del player.sent[-2:]
            # Some time later the first ones are too late as well.
            await trio.sleep(INTERVAL / 1_000)
            await player.send(player.updates("BTCUSDT", boundary, boundary + 2))
            await eventually(lambda: it.updates.rejected.get("late") == 4)
            del player.sent[-2:]
            await rows_are_right(postgres_dsn, all_sent([player]), INTERVAL)
            assert right == expected_rows(player.sent, INTERVAL)
