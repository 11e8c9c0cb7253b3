"""Answers that only the book can give; all other answers are tested with everything that fills the ports.

Only the book has minutes that are older than an hour and not in PostgreSQL yet: Redis has forgotten their
bars by then. And only the owner of the exchanges takes leases, which it may lose and take again.
"""

from __future__ import annotations

import trio
from builders import NOON, World
from test_candles import all_pages, page, starts_of
from test_candles import play as play_one_symbol
from test_spans import PAIRS, ask, check, play

from marketflow.app.answers import POSTGRES
from marketflow.domain.periods import DAY, HOUR, MINUTE, SECOND, Span, floor_to


async def test_rows_that_are_yet_to_be_written_are_not_missing(autojump_clock):
    """PostgreSQL is back after two hours: questions are exact before, during and after writing the rows."""
    world = World(flush_interval=30.0)
    async with world.running(slowly=True) as nursery:
        nursery.start_soon(play, world, 4 * 3_600, 17.3)
        await trio.sleep(600)
        world.store.away = True
        await trio.sleep(2 * 3_600)
        world.store.away = False
        for _ in range(40):
            check(world, await world.spans.of(PAIRS).over(Span(world.now - 3 * HOUR, world.now), world.now))
            await trio.sleep(2)
        assert not list(world.book.rows.folded())


async def test_rows_written_during_the_question_are_not_missing(autojump_clock):
    """If the store is read before the write and the book after it, a row would be in neither."""
    world = World(flush_interval=30.0)
    async with world.running(aggregating=False):
        await world.lease_database()
        await play(world, 2 * 3_600, every=17.3)
        read = world.store.bars

        async def bars(*args):
            world.store.bars = read
            found = await read(*args)
            await world.aggregator.write_due()
            return found

        world.store.bars = bars
        covered = await world.spans.of(PAIRS).over(Span(world.now - 3 * HOUR, world.now), world.now)
        assert covered.source == POSTGRES
        check(world, covered)
        assert world.store.rows


async def test_candles_of_folded_and_unwritten_minutes(autojump_clock):
    """Rows, folded and unwritten minutes, and one-second bars: each update counts once."""
    world = World(flush_interval=30.0)
    async with world.running(slowly=True) as nursery:
        nursery.start_soon(play_one_symbol, world, 6 * 3_600, 30.0)
        await trio.sleep(2 * 3_600)
        world.store.away = True
        await trio.sleep(2 * 3_600)
        world.store.away = False
        await trio.sleep(1)
        for interval in ("1m", "5m", "15m", "1h", "1d"):
            found = await page(world, interval, start=NOON - DAY, limit=1_000)
            expected = starts_of(world, interval, 0, world.now)
            assert [candle.start for candle in found.candles] == expected
        await trio.sleep(120)
        assert not list(world.book.rows.folded())
        for interval in ("1m", "1h", "1d"):
            together = await all_pages(world, interval, 7, start=NOON - DAY)
            assert [candle.start for candle in together] == starts_of(world, interval, 0, world.now)


async def test_hours_after_the_lock_was_taken_again_with_the_window_away(autojump_clock):
    """The bars of others must be read again but cannot be: nothing that was known becomes unknown."""
    world = World(flush_interval=30.0)
    async with world.running(slowly=True) as nursery:
        nursery.start_soon(play, world, 4 * 3_600, 17.3)
        await trio.sleep(3 * 3_600)
        world.window.away = True
        world.store.away = True
        await trio.sleep(70)
        world.store.away = False
        await trio.sleep(70)
        assert world.standing.history_known
        whole = floor_to(world.now, SECOND)
        await ask(world, 2 * HOUR, source=POSTGRES, start=floor_to(whole - 2 * HOUR, MINUTE), end=whole)
