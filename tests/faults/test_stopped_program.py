"""The program is stopped by SIGSTOP for longer than its time limits, and continued."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from programs import program
from rig import all_sent, eventually, exchanges, playing, rows_are_right, window_is_whole

IDLE_TIMEOUT = 2.5


@pytest.mark.parametrize("seconds", [3.0, 4.5])
async def test_what_was_sent_during_a_standstill_is_read(
    redis_url: str, postgres_dsn: str, tmp_path: Path, seconds: float
) -> None:
    """The exchanges were not silent, so their connections are kept, and nothing is lost."""
    changes = {"FEEDS__IDLE_TIMEOUT": f"{IDLE_TIMEOUT:g}s"}
    async with (
        exchanges("exchange1", "exchange2") as players,
        program(players, redis_url, postgres_dsn, tmp_path, "run", changes) as run,
    ):
        await eventually(lambda: all(each.connected for each in players), within=20)
        async with playing(*players):
            for _ in range(2):
                await trio.sleep(1)
                run.stop()
                await trio.sleep(seconds)
                run.go_on()
            await trio.sleep(1)
        assert [each.connections for each in players] == [1, 1]
        await window_is_whole(redis_url, players, within=5)
        await rows_are_right(postgres_dsn, all_sent(players), within=10)
