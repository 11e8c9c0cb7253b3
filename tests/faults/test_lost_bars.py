"""Redis loses all data while no service runs: rows answer for that time, or there is no answer."""

from __future__ import annotations

from pathlib import Path

import trio
from rig import (
    all_sent,
    check_summary,
    eventually,
    exchanges,
    now_ms,
    playing,
    rows_are_right,
    service,
    settings_for,
)

from marketflow.embedded import EmbeddedRedis

INTERVAL = 1_000


async def test_redis_is_emptied_between_two_runs(
    own_redis: EmbeddedRedis, postgres_dsn: str, tmp_path: Path
) -> None:
    """An answer about the time before is exact for its span; candles and rows lose nothing."""
    async with exchanges("exchange1") as players:
        settings = settings_for(
            players, own_redis.url, postgres_dsn, tmp_path, aggregation={"interval": INTERVAL, "grace": 100}
        )
        async with service(settings, players) as it, playing(*players, behind=(0, 0, 40)):
            await trio.sleep(2)
        first = all_sent(players)
        async with service(settings, players):
            await rows_are_right(postgres_dsn, first, INTERVAL)
        own_redis.kill()
        own_redis.start()
        async with service(settings, players) as it, playing(*players, behind=(0, 0, 40)):
            await eventually(lambda: it.updates.cached > 10)
            async with it.still() as sent:
                for period in ("10s", "1m", "5m"):
                    answer = await it.get(f"/prices/aggregate/BTCUSDT?period={period}")
                    check_summary(answer, sent)
                start = now_ms() - 30_000
                candles = await it.get(f"/candles/BTCUSDT?interval=5s&start={start}")
                updates = sum(candle["updates"] for candle in candles["candles"])
                assert updates == sum(each.symbol == "BTCUSDT" for each in sent)
            await rows_are_right(postgres_dsn, sent, INTERVAL, until=now_ms() - 1_500)
