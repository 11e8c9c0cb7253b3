"""What a book has read of earlier boots stays known, whichever store goes away after that."""

from __future__ import annotations

import pytest
import trio
from builders import EXCHANGES, NOON, SYMBOLS, World, lose_lock, play, until

from marketflow.domain.bars import Bar
from marketflow.domain.periods import MINUTE, Range


async def killed_boot():
    """A boot that is killed within a minute; only Redis has what it accepted."""
    world = World()
    async with world.running():
        await play(world, 20)
        await trio.sleep(1)
    return world


async def updates_of_candles(world):
    found = await world.queries.candles(SYMBOLS[0], None, "1m", NOON, None, 10)
    return [(candle.start, candle.updates) for candle in found.candles]


@pytest.mark.parametrize("away_at_start", [False, True], ids=["there at the start", "away at the start"])
async def test_a_database_that_comes_back_without_redis_gets_all_rows(autojump_clock, away_at_start):
    """Redis has answered once, so that the first minute is known."""
    world = (await killed_boot()).successor("boot2")
    world.store.away = away_at_start
    async with world.running():
        await until(lambda: world.standing.history_known)
        world.store.away = True
        await play(world, 70)
        world.window.away = True
        await play(world, 60)
        world.store.away = False
        await play(world, 5)
        assert world.aggregator.pending == 0
        world.check_rows(NOON + 2 * MINUTE)


@pytest.mark.parametrize("times", [1, 3])
async def test_a_lock_that_is_taken_again_without_redis_makes_nothing_unknown(autojump_clock, times):
    """Candles of the time before this boot are answered as before."""
    world = (await killed_boot()).successor("boot2")
    async with world.running():
        await play(world, 150)
        world.window.away = True
        await trio.sleep(2)
        before = await updates_of_candles(world)
        assert len(before) == 3
        summary = await world.queries.summary(SYMBOLS[0], None, Range("10m"))
        for _ in range(times):
            lose_lock(world.store)
            await trio.sleep(3)
            assert await updates_of_candles(world) == before
        after = await world.queries.summary(SYMBOLS[0], None, Range("10m"))
        assert (after.updates, after.max_price) == (summary.updates, summary.max_price)


async def test_rows_of_earlier_boots_that_are_lost_with_redis_away_are_written_again(autojump_clock):
    """Their bars are known, so nothing has to be waited for."""
    world = (await killed_boot()).successor("boot2")
    async with world.running():
        await play(world, 70)
        world.check_rows(NOON + MINUTE)
        world.window.away = True
        await trio.sleep(1)
        world.store.rows.clear()
        lose_lock(world.store)
        await trio.sleep(4)
        world.check_rows(NOON + MINUTE)


async def test_what_another_boot_has_added_is_in_the_next_answer(autojump_clock):
    """The lock was lost to a boot that has written meanwhile; a question waits until that was read."""
    world = World()
    world.window.read_seconds = 0.3
    async with world.running():
        await play(world, 20)
        second, pair = NOON + 5_000, (EXCHANGES[0], SYMBOLS[0])
        world.window.stored_bars[pair][second, "other"] = Bar.of([second], [7_000.0])
        lease = world.share.leases.database.number
        lose_lock(world.store)
        await until(lambda: world.share.leases.database.number != lease)
        assert (await world.queries.statistic("highest", SYMBOLS[0], None, Range("1m"))).price == 7_000.0


async def test_without_redis_nothing_is_read_and_nothing_claimed(autojump_clock):
    """As long as Redis has not answered once, the time before this boot is unknown."""
    world = (await killed_boot()).successor("boot2")
    world.window.away = True
    async with world.running():
        await play(world, 100)
        lose_lock(world.store)
        await trio.sleep(3)
        assert not world.standing.history_known
        assert (NOON + MINUTE) not in {end for _, _, end in world.store.rows}
