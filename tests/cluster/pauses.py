"""How long exchanges are not written to Redis, and how old the newest answers are."""

from __future__ import annotations

import bisect
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import attrs
import redis
import trio

from tests.cluster.stage import Stage, monotonic

LOOK_SECONDS = 0.02
ASK_SECONDS = 0.1
LONGEST = 60.0
"""Seconds. A longer pause counts as this."""
SYMBOL = "BTCUSDT"


@attrs.frozen
class Pauses:
    """What was seen during a block. Times in seconds."""

    writes: dict[str, float]
    """For how long an update had been sent that was not in Redis at a look, at most, by exchange. Without any
    fault it is the time between two flushes."""
    answers: dict[str, float]
    """For how long an update had been sent that a node's answer about the newest did not know, at most."""


@asynccontextmanager
async def pauses(stage: Stage) -> AsyncIterator[Pauses]:
    """Look and ask during the block."""
    exchanges = stage.exchanges
    found = Pauses(dict.fromkeys(exchanges, 0.0), dict.fromkeys(exchanges, 0.0))
    async with trio.open_nursery() as nursery:
        for exchange in exchanges:
            nursery.start_soon(_look, stage, exchange, found)
        nursery.start_soon(_ask, stage, found)
        yield found
        nursery.cancel_scope.cancel()


async def _look(stage: Stage, exchange: str, found: Pauses) -> None:
    with ExitStack() as stack:
        client: redis.Redis | None = None

        def newest() -> float | None:
            nonlocal client
            try:
                if client is None:
                    client = stack.enter_context(stage.windows.redis.client(exchange))
                last = client.zrange(f"prices:{{{exchange}}}:{SYMBOL}", -1, -1, withscores=True)
            except (redis.RedisError, AssertionError):
                client = None  # Another server may have it now.
                return None
            return last[0][1] if last else None

        known = 0.0
        while True:
            asked_at = monotonic()
            known = max(known, await trio.to_thread.run_sync(newest) or 0.0)
            if known:
                found.writes[exchange] = max(
                    found.writes[exchange], _unknown(stage, exchange, known, asked_at)
                )
            await trio.sleep(LOOK_SECONDS)


async def _ask(stage: Stage, found: Pauses) -> None:
    while True:
        for exchange in stage.exchanges:
            asked_at, latest = await stage.ask(f"/prices/latest/{exchange}/{SYMBOL}")
            known = latest.body["timestamp"] if latest.status == 200 else 0
            found.answers[exchange] = max(found.answers[exchange], _unknown(stage, exchange, known, asked_at))
        await trio.sleep(ASK_SECONDS)


def _unknown(stage: Stage, exchange: str, known: float, at: float) -> float:
    """For how long the first update after the `known` timestamp had been sent then; 0: none had."""
    sent = stage.sent_by(exchange)
    lately = sent[bisect.bisect_left(sent, at - LONGEST, key=lambda each: each.sent_at) :]
    first = next((each for each in lately if each.symbol == SYMBOL and each.timestamp > known), None)
    return 0.0 if first is None else max(0.0, at - first.sent_at)
