"""Checks of what must hold while Redis is away for any reason."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial

import trio
from rig import Exchange, Service, check_summary, eventually, now_ms, rows_are_right, window_is_whole


async def check_outage(it: Service, players: Sequence[Exchange], dsn: str, seconds: float) -> None:
    """For so long, feeds go on, rows are written on time, and answers from memory are fresh and right."""
    await trio.sleep(1.05)  # Answers from memory are in whole seconds, so a second with updates must be over.
    until = trio.current_time() + seconds
    accepted = it.updates.accepted
    while trio.current_time() < until:
        async with it.still() as sent:
            summary = await it.get("/prices/aggregate/BTCUSDT?period=1m")
            short = await it.get("/prices/aggregate/exchange1/DOGEUSDT?period=2s")
            latest = await it.get("/prices/latest/BTCUSDT")
        for answer in (summary, short):
            assert answer["source"] == "memory"
            assert answer["end"] % 1_000 == 0
            check_summary(answer, sent)
        newest = max(each.timestamp for each in sent if each.symbol == "BTCUSDT")
        assert latest["source"] == "memory"
        assert latest["timestamp"] == newest
        await trio.sleep(0.3)
        await eventually(partial(more_accepted, it, accepted), within=1, what="the feeds go on")
        accepted = it.updates.accepted
        # A row is due 200 ms after the interval's end, which is checked each second.
        await rows_are_right(dsn, sent, until=now_ms() - 1_600, within=0.5)


def more_accepted(it: Service, before: int) -> bool:
    """Whether it has accepted more updates than before."""
    return it.updates.accepted > before


async def check_up(it: Service, players: Sequence[Exchange]) -> None:
    """Answers are from Redis again, exact to the ms."""
    async with it.still() as sent:
        summary = {}

        async def from_redis() -> bool:
            summary.update(await it.get("/prices/aggregate/BTCUSDT?period=1m"))
            return summary["source"] == "redis"

        await eventually(from_redis, within=1)
    check_summary(summary, sent)


async def check_whole(it: Service, redis_url: str, players: Sequence[Exchange]) -> None:
    """Within 2 s after an outage the window has all accepted updates, and answers come from it."""
    await window_is_whole(redis_url, players, within=2)
    await check_up(it, players)
    await eventually(lambda: it.updates.pending == 0)
    assert it.updates.cached == it.updates.accepted


async def no_thread_left() -> None:
    """Wait until no thread works. Trio keeps idle threads for a while, under another name."""

    def at_work() -> list[str]:
        return [each.name for each in threading.enumerate() if each.name.startswith("trio.to_thread")]

    await eventually(lambda: not at_work(), within=2, what="no thread at work")
