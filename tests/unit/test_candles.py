"""Candles and their pages, with each filling of the ports of questions."""

from __future__ import annotations

import random

import attrs
import pytest
import trio
from builders import EXCHANGES, MIRRORS, NOON, SYMBOLS, World, only, summary_of, until

from marketflow.app.answers import NothingCanAnswer
from marketflow.domain.periods import CANDLE_INTERVALS, DAY, HOUR, MINUTE, SECOND, ceil_to, floor_to

BTC = SYMBOLS[0]
GRACE = 2_000


async def play(world, seconds, every, *, seed=1):
    """Traffic with pauses: one candle in three is missing."""
    rng, end = random.Random(seed), trio.current_time() + seconds
    while trio.current_time() < end:
        exchange = rng.choice(EXCHANGES)
        world.send(
            exchange, [(BTC, rng.uniform(1, 9), world.now - rng.choice([0, 0, 700])) for _ in range(3)]
        )
        await trio.sleep(every * rng.choice([0.1, 0.5, 1, 4]))


async def page(world, interval, *, exchange=None, start=None, end=None, limit=500):
    """A page, each candle of which was checked against the model."""
    await world.answerable()
    found = await world.queries.candles(BTC, only(exchange), interval, start, end, limit)
    buckets = CANDLE_INTERVALS[interval]
    width = buckets.width
    assert (found.symbol, found.exchange, found.interval) == (BTC, exchange, interval)
    assert len(found.candles) <= limit
    starts = [candle.start for candle in found.candles]
    assert starts == sorted(set(starts))
    for candle in found.candles:
        assert candle.start == buckets.floor(candle.start)
        assert candle.end == candle.start + width
        assert candle.closed == (candle.end + GRACE <= world.now)
        model = summary_of(updates_of(world, exchange, candle.start, candle.end))
        shown = (candle.updates, candle.open, candle.high, candle.low, candle.close)
        assert shown == (model.count, model.open, model.max, model.min, model.close)
        assert candle.average == pytest.approx(float(model.mean), rel=1e-9)
    return found


def updates_of(world, exchange, start, end):
    return [
        update
        for update in world.sent
        if update.symbol == BTC
        and (update.exchange == exchange if exchange else update.exchange in EXCHANGES)
        and start <= update.timestamp < end
    ]


def starts_of(world, interval, start, end, exchange=None):
    """The starts of all candles that must be shown."""
    buckets = CANDLE_INTERVALS[interval]
    return sorted({buckets.floor(each.timestamp) for each in updates_of(world, exchange, start, end)})


async def all_pages(world, interval, limit, **span):
    """All pages, following `next`."""
    candles, following = [], span.pop("start")
    while following is not None:
        found = await page(world, interval, start=following, limit=limit, **span)
        assert found.candles or found.next is None
        candles += found.candles
        assert found.next is None or found.next > found.candles[-1].start
        following = found.next
    return candles


def without_average(candle):
    """The candle without its average, whose last digit depends on the order of merging; `page` checks it."""
    return attrs.evolve(candle, average=0.0)


@pytest.mark.parametrize("interval", ["1s", "5s", "15s", "1m"])
async def test_candles_are_those_of_the_updates(autojump_clock, filling, interval):
    """This includes the open one; for one exchange and for all, with the window up and away."""
    world = World(flush_interval=0.5, filling=filling)
    async with world.running() as nursery:
        nursery.start_soon(play, world, 400, 1.0)
        await trio.sleep(200.3)
        for away in (False, True):
            world.window.away = away
            await trio.sleep(1.5)
            if world.knows_nothing:
                with pytest.raises(NothingCanAnswer):
                    await page(world, interval, start=NOON)
                continue
            for exchange in (None, "exchange1"):
                found = await page(world, interval, exchange=exchange, start=NOON)
                expected = starts_of(world, interval, NOON, world.now, exchange)
                assert [candle.start for candle in found.candles] == expected
                assert not found.candles[-1].closed
                assert found.next is None


@pytest.mark.parametrize("interval", ["1s", "15s", "1m"])
@pytest.mark.parametrize("limit", [1, 2, 7, 50])
async def test_all_pages_together_are_one_big_page(autojump_clock, filling, interval, limit):
    world = World(flush_interval=5.0, filling=filling)
    async with world.running(slowly=True):
        await play(world, 300, 4.0)
        end = floor_to(world.now, MINUTE)
        whole = await page(world, interval, start=NOON, end=end, limit=1_000)
        together = await all_pages(world, interval, limit, start=NOON, end=end)
        assert list(map(without_average, together)) == list(map(without_average, whole.candles))
        assert len(whole.candles) > 4


async def test_without_a_start_the_newest_ones(autojump_clock, filling):
    world = World(flush_interval=5.0, filling=filling)
    async with world.running(slowly=True):
        await play(world, 600, 7.0)
        every = starts_of(world, "5s", NOON, world.now)
        for limit in (1, 3, 20, 1_000):
            found = await page(world, "5s", limit=limit)
            assert [candle.start for candle in found.candles] == every[-limit:]
            assert found.next is None
        earlier = every[-10]
        found = await page(world, "5s", end=earlier, limit=5)
        assert [candle.start for candle in found.candles] == every[-15:-10]


async def test_a_candle_belongs_where_it_begins(autojump_clock, filling):
    """The page has the whole candles that begin within [start, end), for any bounds."""
    world = World(flush_interval=5.0, filling=filling)
    async with world.running(slowly=True):
        for minute in range(5):
            world.send_one(1.0 + minute)
            await trio.sleep(60)
        for start, end, minutes in [
            (0, 2, [0, 1]),
            (0.5, 2, [1]),
            (0, 2.001, [0, 1, 2]),
            (1, 1, []),
            (3, 1, []),
        ]:
            found = await page(world, "1m", start=NOON + int(start * MINUTE), end=NOON + int(end * MINUTE))
            assert [(candle.start - NOON) // MINUTE for candle in found.candles] == minutes


async def test_long_intervals_go_over_rows_bars_and_the_open_minute(autojump_clock, filling):
    """Each update counts once, in pages of any length."""
    world = World(flush_interval=30.0, filling=filling)
    async with world.running(slowly=True) as nursery:
        nursery.start_soon(play, world, 4 * 3_600, 30.0)
        await trio.sleep(3 * 3_600)
        for interval in ("1m", "5m", "15m", "1h", "1d"):
            found = await page(world, interval, start=NOON - DAY, limit=1_000)
            expected = starts_of(world, interval, 0, world.now)
            assert [candle.start for candle in found.candles] == expected
        for interval in ("1m", "1h", "1d"):
            together = await all_pages(world, interval, 7, start=NOON - DAY)
            assert [candle.start for candle in together] == starts_of(world, interval, 0, world.now)


async def test_fine_candles_reach_back_as_far_as_the_bars(autojump_clock, filling):
    world = World(flush_interval=30.0, filling=filling)
    async with world.running(slowly=True):
        await play(world, 2 * 3_600, 9.0)
        await world.answerable()
        reach = floor_to(world.now - HOUR, MINUTE)
        found = await page(world, "15s", start=NOON, limit=1_000)
        assert [candle.start for candle in found.candles] == starts_of(world, "15s", reach, world.now)


@pytest.mark.parametrize("seconds", [2, 6, 12, 20])
async def test_the_first_fine_candle_is_whole(autojump_clock, filling, seconds):
    """If the aggregates' interval is not a multiple of it, the bars may begin within one."""
    world = World(flush_interval=30.0, interval=seconds * SECOND, filling=filling)
    async with world.running(aggregating=False):
        await until(lambda: world.flusher.up)
        await trio.sleep(3_600 - 120)
        for _ in range(400):
            world.send_one(random.Random(1).uniform(1, 9))
            await trio.sleep(1)
        await trio.sleep(3_400)
        for offset in range(7):
            await trio.sleep(1.0)
            for interval in ("5s", "15s"):
                assert (await page(world, interval, start=NOON, limit=1_000)).candles, offset


async def test_with_postgres_away_what_it_would_tell_is_not_made_up(autojump_clock, filling):
    """The newest candles reach back as far as the bars; older ones cannot be answered."""
    world = World(flush_interval=30.0, filling=filling)
    async with world.running(slowly=True):
        await play(world, 3 * 3_600, 30.0)
        await world.answerable()
        world.store.away = True
        reach = floor_to(world.now - HOUR, MINUTE)
        found = await page(world, "1m", limit=1_000)
        assert [candle.start for candle in found.candles] == starts_of(world, "1m", reach, world.now)
        found = await page(world, "1m", start=reach + MINUTE, limit=1_000)
        assert [candle.start for candle in found.candles] == starts_of(world, "1m", reach + MINUTE, world.now)
        with pytest.raises(NothingCanAnswer):
            await page(world, "1m", start=reach - HOUR)
        with pytest.raises(NothingCanAnswer):
            await page(world, "1d", start=floor_to(world.now, DAY))


async def test_before_the_history_is_known_no_candle_is_half_told(autojump_clock, filling):
    """The interval in which this boot began lacks updates of earlier boots."""
    first = World(filling=filling)
    async with first.running():
        await play(first, 100, 1.0)
        await trio.sleep(0.5)
    world = first.successor("boot2")
    world.window.away = True
    async with world.running():
        await play(world, 130, 1.0)
        began = floor_to(world.book.began_at, MINUTE)
        if world.knows_nothing:
            for start in (began + MINUTE, None):
                with pytest.raises(NothingCanAnswer):
                    await page(world, "1m", start=start)
        else:
            found = await page(world, "1m", start=began + MINUTE)
            assert len(found.candles) == 2
            found = await page(world, "1m")
            assert [candle.start for candle in found.candles] == [began + MINUTE, began + 2 * MINUTE]
        with pytest.raises(NothingCanAnswer):
            await page(world, "1m", start=began)
        world.window.away = False
        await until(lambda: world.flusher.up)
        found = await page(world, "1m", start=NOON)
        assert [candle.start for candle in found.candles] == starts_of(world, "1m", NOON, world.now)


@pytest.mark.parametrize("minutes", [0, 3, 50, 110])
async def test_rows_that_an_earlier_boot_did_not_write_are_not_left_out_silently(
    autojump_clock, filling, minutes
):
    """It was killed with PostgreSQL away, and only Redis has its bars. Nobody can read these yet."""
    first = World(filling=filling)
    first.store.away = True
    async with first.running():
        await play(first, 125, 1.0)
        await trio.sleep(0.5)
    await trio.sleep(minutes * 60)
    world = first.successor("boot2")
    world.store.away, world.window.away = False, True
    async with world.running(slowly=True):
        await play(world, 190, 1.0)
        began = world.book.began_at
        for interval in ("1s", "1m", "5m"):
            for start in (NOON, NOON - DAY):
                with pytest.raises(NothingCanAnswer):
                    await page(world, interval, start=start, end=began, limit=1_000)
        if world.knows_nothing:
            # A mirror knows since when it is there: what is far older than that can only be in rows.
            old = [] if filling == MIRRORS else [{"start": NOON - 2 * DAY, "end": NOON - DAY}]
            for span in ({}, *old):
                with pytest.raises(NothingCanAnswer):
                    await page(world, "1m", **span)
            return
        found = await page(world, "1m")
        assert found.known_from == ceil_to(began, MINUTE)
        assert [candle.start for candle in found.candles] == starts_of(
            world, "1m", found.known_from, world.now
        )
        # Earlier boots can no longer tell anything of that time: Redis has forgotten it.
        assert not (await page(world, "1m", start=NOON - 2 * DAY, end=NOON - DAY)).candles


async def test_candles_of_deleted_rows_are_not_half_told(autojump_clock, filling):
    world = World(flush_interval=30.0, retention=2 * HOUR, filling=filling)
    async with world.running(slowly=True):
        await play(world, 5 * 3_600, 60.0)
        for interval in ("1m", "30m", "1h", "4h", "1d", "1w"):
            await page(world, interval, start=NOON - DAY, limit=1_000)


@pytest.mark.parametrize(("start", "end"), [(0, None), (-(10**18), None), (0, 10**18), (10**18, None)])
async def test_any_bounds_are_answered(autojump_clock, filling, start, end):
    world = World(filling=filling)
    async with world.running():
        world.send_one(1.0)
        await trio.sleep(65)
        for interval in CANDLE_INTERVALS:
            found = await page(world, interval, start=start, end=end)
            assert len(found.candles) == (start < NOON)
