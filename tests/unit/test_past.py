"""Past spans and prices at a time are those of the updates, or of whole seconds and intervals."""

from __future__ import annotations

import random

import pytest
import trio
from builders import EXCHANGES, NOON, SYMBOLS, World, only

from marketflow.app.answers import NoData
from marketflow.domain.bars import BAR_WIDTH
from marketflow.domain.periods import HOUR, MINUTE, SECOND, Range, floor_to

BTC = SYMBOLS[0]


async def play(world, seconds, every, rng):
    """Updates of both exchanges, some of them late, none in some of the seconds."""
    end = trio.current_time() + seconds
    while trio.current_time() < end:
        exchange = rng.choice(EXCHANGES)
        world.send(exchange, [(BTC, rng.uniform(1, 9), world.now - rng.choice([0, 0, 700]))])
        await trio.sleep(every * rng.choice([0.1, 0.5, 1, 4]))


def updates_of(world, exchange):
    return [
        each
        for each in world.sent
        if each.symbol == BTC and (each.exchange == exchange if exchange else each.exchange in EXCHANGES)
    ]


def last_before(world, exchange, end):
    """The update that an answer about the time before `end` (ms) has; None if there is none."""
    updates = [each for each in updates_of(world, exchange) if each.timestamp < end]
    return max(updates, key=lambda each: (each.timestamp, each.exchange, each.order), default=None)


async def check_at(world, exchange, time):
    """Ask for the price at a time, and compare it with the updates. Returns the resolution."""
    await world.answerable()
    now = world.now
    try:
        found = await world.queries.at(BTC, only(exchange), time)
    except NoData:
        ended = floor_to(min(time, now), MINUTE if time < now - HOUR else BAR_WIDTH)
        assert last_before(world, exchange, ended) is None
        return None
    assert found.time == min(time, now)
    width = {"exact": None, "1s": SECOND, "1m": MINUTE}[found.resolution]
    end = found.time + 1 if width is None else floor_to(found.time, width)
    expected = last_before(world, exchange, end)
    assert (found.exchange, found.price, found.timestamp) == (
        expected.exchange,
        expected.price,
        expected.timestamp,
    )
    return found.resolution


@pytest.mark.parametrize("seed", range(2))
async def test_the_price_at_a_time_is_the_last_update_by_then(autojump_clock, filling, seed):
    """Within the window it is exact; then it is the close of a second, then of a minute."""
    rng, world = random.Random(seed), World(flush_interval=5.0, filling=filling)
    async with world.running(slowly=True):
        await play(world, 1.4 * 3_600, 20.0, rng)
        found = set()
        for _ in range(60):
            back = rng.choice([0, 5 * SECOND, 55 * SECOND, 10 * MINUTE, 50 * MINUTE, 80 * MINUTE, 4 * HOUR])
            time = world.now - rng.randint(0, back)
            found.add(await check_at(world, rng.choice([None, *EXCHANGES]), time))
            await trio.sleep(0.37)
        assert {"exact", "1s", "1m"} <= found
        assert await check_at(world, None, world.now + HOUR) == "exact"
        assert await check_at(world, None, NOON - HOUR) is None


async def test_without_redis_a_price_is_that_of_a_whole_second(autojump_clock, filling):
    world = World(filling=filling)
    async with world.running() as nursery:
        nursery.start_soon(play, world, 60, 0.2, random.Random(7))
        await trio.sleep(30.3)
        world.window.away = True
        await trio.sleep(1.5)
        if not world.knows_nothing:
            assert await check_at(world, None, world.now - 500) == "1s"


@pytest.mark.parametrize("seed", range(2))
async def test_a_past_span_is_answered_for_what_it_says(autojump_clock, filling, seed):
    """To the ms within the window; else it is widened to whole seconds or minutes, never beyond now."""
    rng, world = random.Random(seed), World(flush_interval=5.0, filling=filling)
    async with world.running(slowly=True):
        await play(world, 1.4 * 3_600, 20.0, rng)
        await play(world, 50, 1.0, rng)
        exact = 0
        for _ in range(60):
            await world.answerable()
            now, back = world.now, rng.choice([40 * SECOND, 40 * MINUTE, 80 * MINUTE])
            start = now - rng.randint(1, back)
            end = rng.choice([None, rng.randint(start + 1, now + SECOND)])
            exchange = rng.choice([None, *EXCHANGES])
            try:
                found = await world.queries.summary(BTC, only(exchange), Range(start=start, end=end))
            except NoData:
                continue
            asked_end = now if end is None else min(end, now)
            assert start - MINUTE < found.start <= start
            assert found.end <= now
            assert asked_end - SECOND < found.end < asked_end + MINUTE
            exact += (found.start, found.end) == (start, asked_end)
            assert found.start == start or found.start % SECOND == 0
            updates = [
                each.price
                for each in updates_of(world, exchange)
                if found.start <= each.timestamp < found.end
            ]
            assert (found.updates, found.min_price) == (len(updates), min(updates))
            assert found.max_price == max(updates)
            await play(world, 0.37, 1.0, rng)
        assert exact > 5
