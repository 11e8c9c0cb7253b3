"""The newest prices and the statistics, with each filling of the ports of questions."""

from __future__ import annotations

import random

import pytest
import trio
from builders import BOOK, EXCHANGES, SYMBOLS, TEST_EXCHANGES, World, only, summary_of, until

from marketflow.app.answers import (
    MEMORY,
    POSTGRES,
    REDIS,
    NoData,
    NothingCanAnswer,
    UnknownExchange,
    UnknownSymbol,
)
from marketflow.app.ports import Aggregate
from marketflow.app.questions.newest_rows import REMEMBERED_SECONDS
from marketflow.domain.bars import Bar
from marketflow.domain.periods import HOUR, MINUTE, BadPeriod, Range, Span

BTC, ETH = SYMBOLS


def newest_of(updates):
    return max(updates, key=lambda update: (update.timestamp, update.exchange, update.order))


async def check_latest(world, *, source=None):
    """Latest prices of each pair, of each symbol, and all at once equal those of the model."""
    await world.answerable()
    live = [(exchange, symbol) for symbol in SYMBOLS for exchange in EXCHANGES]
    known = [newest_of(world.of(pair)) for pair in live if world.of(pair)]
    found = await world.queries.latest_of_all(None, None)
    expected = [(each.exchange, each.symbol, each.price, each.timestamp) for each in known]
    assert [(each.exchange, each.symbol, each.price, each.timestamp) for each in found] == expected
    if source is not None:
        assert {each.source for each in found} <= {source}
    for symbol in SYMBOLS:
        of_symbol = [each for each in known if each.symbol == symbol]
        if of_symbol:
            one, newest = await world.queries.latest(symbol, None), newest_of(of_symbol)
            assert (one.exchange, one.price, one.timestamp) == (
                newest.exchange,
                newest.price,
                newest.timestamp,
            )


async def check_nothing_is_known(world, period):
    """Without rows, no question can be answered."""
    with pytest.raises(NothingCanAnswer):
        await world.queries.latest_of_all(None, None)
    for symbol in SYMBOLS:
        with pytest.raises(NothingCanAnswer):
            await world.queries.latest(symbol, None)
        with pytest.raises(NothingCanAnswer):
            await world.queries.summary(symbol, None, Range(period))
        with pytest.raises(NothingCanAnswer):
            await world.queries.statistic("average", symbol, None, Range(period))


async def check_statistics(world, period):
    """Each statistic, of one exchange and of all, agrees with the model over the span in the answer."""
    await world.answerable()
    for exchange in (None, *EXCHANGES):
        for symbol in SYMBOLS:
            summary = await world.queries.summary(symbol, only(exchange), Range(period))
            span = Span(summary.start, summary.end)
            updates = [
                each
                for name in EXCHANGES
                if exchange in (None, name)
                for each in world.of((name, symbol), span)
            ]
            model = summary_of(updates)
            assert (summary.updates, summary.min_price, summary.max_price) == (
                model.count,
                model.min,
                model.max,
            )
            assert (summary.open_price, summary.close_price) == (model.open, model.close)
            assert summary.average_price == pytest.approx(float(model.mean), rel=1e-9)
            for kind, price in (
                ("highest", model.max),
                ("lowest", model.min),
                ("average", float(model.mean)),
            ):
                found = await world.queries.statistic(kind, symbol, only(exchange), Range(period))
                assert found.price == pytest.approx(price, rel=0 if kind != "average" else 1e-9)
                assert (found.updates, found.start, found.end) == (model.count, summary.start, summary.end)
                if kind == "average":
                    assert found.exchange == exchange
                else:
                    assert price in [each.price for each in updates if each.exchange == found.exchange]


async def play(world, seconds, every=0.3):
    """Traffic of all exchanges without equal timestamps, since rows do not record their order."""
    rng, end = random.Random(1), trio.current_time() + seconds
    while trio.current_time() < end:
        for place, exchange in enumerate((*EXCHANGES, *TEST_EXCHANGES)):
            ages = [(symbol, rng.choice([0, 0, rng.randrange(0, 2_000, 3)])) for symbol in SYMBOLS]
            now = world.now - world.now % 3 - place
            world.send(exchange, [(symbol, rng.uniform(1, 9), now - age) for symbol, age in ages])
        await trio.sleep(every)


# ---- latest ----


async def test_latest_is_the_newest_whatever_happens_to_the_window(autojump_clock, filling):
    """With the window up, away, emptied and back, an update just before the question is in the answer."""
    rng, world = random.Random(1), World(filling=filling)
    # Rows would answer, with older prices, where nothing else is known.
    world.store.away = filling != BOOK
    async with world.running():
        await until(lambda: world.flusher.up)
        for turn in range(60):
            match turn % 12:
                case 3:
                    world.window.away = True
                case 6:
                    world.window.away = False
                case 9:
                    world.window.empty()
            for exchange in EXCHANGES:
                ages = [rng.choice([0, 1, 1, 5]) for _ in range(3)]
                world.send(
                    exchange, [(rng.choice(SYMBOLS), rng.uniform(1, 9), world.now - age) for age in ages]
                )
            if world.knows_nothing:
                await check_nothing_is_known(world, "5s")
            else:
                await check_latest(world)
            await trio.sleep(rng.choice([0.001, 0.3, 1.1]))


@pytest.mark.parametrize("names", [EXCHANGES, EXCHANGES[::-1]], ids=["in order", "the other way round"])
async def test_of_equal_timestamps_the_later_received_wins_and_of_several_exchanges_always_the_same(
    autojump_clock, filling, names
):
    """Receipt has no order over exchanges: the other node, or the next start, would choose another one."""
    world = World(filling=filling)
    async with world.running():
        await until(lambda: world.flusher.up)
        now = world.now
        sent = {"exchange1": [5.0, 7.0, 6.0], "exchange2": [9.0, 100.0]}
        for name in names:
            world.send(name, [(BTC, price, now) for price in sent[name]])
        await world.answerable()
        assert (await world.queries.latest(BTC, ("exchange1",))).price == 6.0
        found = await world.queries.latest(BTC, None)
        assert (found.exchange, found.price, found.source) == ("exchange2", 100.0, REDIS)
        await trio.sleep(0.1)
        whole = await world.queries.summary(BTC, None, Range("5s"))
        assert (whole.open_price, whole.close_price) == (5.0, 100.0)
        (candle,) = (await world.queries.candles(BTC, None, "1s", now - 1_000, None, 5)).candles
        assert (candle.open, candle.close) == (5.0, 100.0)


async def test_the_newest_known_however_old(autojump_clock, filling):
    """It comes from the window, then bars, then rows; of this boot and of earlier ones."""
    world = World(flush_interval=10.0, filling=filling)
    async with world.running(slowly=True):
        await play(world, 65)
        await trio.sleep(300)
        await check_latest(world)
        await trio.sleep(2 * HOUR / 1_000)
        await check_latest(world)
    world.window.empty()
    world = world.successor("boot2", flush_interval=10.0)
    async with world.running(slowly=True):
        await until(lambda: world.flusher.up)
        found = await world.queries.latest_of_all(None, None)
        assert {each.source for each in found} == {POSTGRES}
        await check_latest(world, source=POSTGRES)
        world.send_one(3.0)
        await world.answerable()
        assert (await world.queries.latest(BTC, ("exchange1",))).source == REDIS
        await check_latest(world)


async def test_with_the_window_away_only_the_book_answers(autojump_clock, filling):
    world = World(filling=filling)
    world.window.away = True
    async with world.running():
        await play(world, 5)
        if world.knows_nothing:
            await check_nothing_is_known(world, "5s")
        else:
            await check_latest(world, source=MEMORY)


async def test_with_the_window_away_rows_tell_the_newest_price_that_they_know(autojump_clock, filling):
    """They are older than the bars, and the answer says that it is from PostgreSQL."""
    world = World(filling=filling)
    async with world.running():
        await play(world, 70)
        await world.answerable()
        world.window.away = True
        await trio.sleep(1)
        if not world.knows_nothing:
            await check_latest(world, source=MEMORY)
            return
        found = await world.queries.latest_of_all(None, None)
        end = max(key[2] for key in world.store.rows)
        for each in found:
            newest = newest_of(world.of((each.exchange, each.symbol), Span(0, end)))
            assert (each.price, each.timestamp, each.source) == (newest.price, newest.timestamp, POSTGRES)
        assert len(found) == len(EXCHANGES) * len(SYMBOLS)


async def test_where_there_never_was_an_update_there_is_no_data(autojump_clock, filling):
    world = World(filling=filling)
    async with world.running():
        await until(lambda: world.flusher.up)
        with pytest.raises(NoData):
            await world.queries.latest(BTC, None)
        assert await world.queries.latest_of_all(None, None) == []
        world.send_one(1.0)
        await world.answerable()
        assert len(await world.queries.latest_of_all(None, None)) == 1
        with pytest.raises(NoData):
            await world.queries.latest(ETH, None)


async def test_what_no_exchange_sends_is_not_asked_for_again_and_again(autojump_clock, filling):
    """Otherwise each question about a symbol that an exchange lacks would cost a call to the store."""
    world = World(filling=filling)
    async with world.running(aggregating=False):
        world.send_one(1.0)
        await until(lambda: world.flusher.up)
        await world.answerable()
        asked = []
        newest = world.store.newest

        async def counted(pairs):
            asked.append(pairs)
            return await newest(pairs)

        world.store.newest = counted
        for _ in range(100):
            assert [found.price for found in await world.queries.latest_of_all(None, None)] == [1.0]
        assert len(asked) == 1
        await world.store.lease()
        await world.store.write([Aggregate(EXCHANGES[1], ETH, MINUTE, Bar.of([59_000], [7.0]))])
        await trio.sleep(REMEMBERED_SECONDS + 0.01)
        found = await world.queries.latest_of_all(None, None)
        assert sorted((one.price, one.source) for one in found) == [(1.0, "redis"), (7.0, "postgres")]
        await world.store.delete_before(MINUTE + 1)
        await trio.sleep(REMEMBERED_SECONDS + 0.01)
        async with trio.open_nursery() as nursery:  # many at once share one call
            for _ in range(100):
                nursery.start_soon(world.queries.latest_of_all, None, None)
        assert len(asked) == 3
        assert [found.price for found in await world.queries.latest_of_all(None, None)] == [1.0]


@pytest.mark.parametrize("away", ["window", "store", "both"])
async def test_that_there_never_was_one_nobody_knows_with_a_store_away(autojump_clock, filling, away):
    """A 404 would be wrong."""
    world = World(filling=filling)
    world.window.away = away in ("window", "both")
    world.store.away = away in ("store", "both")
    async with world.running():
        await trio.sleep(3)
        with pytest.raises(NothingCanAnswer):
            await world.queries.latest(BTC, None)


# ---- over a period ----


async def test_statistics_agree_with_the_updates(autojump_clock, filling):
    """With the window up, emptied, away, and back."""
    world = World(filling=filling)
    # Rows would answer, with older prices, where nothing else is known.
    world.store.away = filling != BOOK
    async with world.running() as nursery:
        nursery.start_soon(play, world, 200)
        await trio.sleep(70.321)
        periods = ("1s", "2s", "17s", "60s", "1m", "65s")
        for change in (lambda: None, world.window.empty):
            change()
            for period in periods:
                await check_statistics(world, period)
                await trio.sleep(0.123)
        world.window.away = True
        await trio.sleep(1)
        for period in periods:
            if world.knows_nothing:
                await check_nothing_is_known(world, period)
                continue
            await check_statistics(world, period)
            assert (await world.queries.summary(BTC, None, Range(period))).source == MEMORY
        world.window.away = False
        await until(lambda: world.flusher.up)
        for period in periods:
            await check_statistics(world, period)
            assert (await world.queries.summary(BTC, None, Range(period))).source == REDIS


async def test_statistics_of_all_symbols_are_those_of_each(autojump_clock, filling):
    world = World(filling=filling)
    async with world.running():
        await play(world, 5)
        await world.answerable()
        for kind in ("highest", "lowest", "average"):
            every = await world.queries.statistics(kind, None, None, Range("1m"))
            assert every == [
                await world.queries.statistic(kind, symbol, None, Range("1m")) for symbol in SYMBOLS
            ]
            assert await world.queries.statistics(kind, (ETH,), ("exchange2",), Range("1m")) == [
                await world.queries.statistic(kind, ETH, ("exchange2",), Range("1m"))
            ]


async def test_an_extreme_that_two_exchanges_share_is_told_of_one_that_has_it(autojump_clock, filling):
    world = World(filling=filling)
    async with world.running():
        await until(lambda: world.flusher.up)
        world.send_one(7.0, exchange="exchange2", age=5)
        world.send_one(7.0, exchange="exchange1", age=5)
        world.send_one(8.0, exchange="exchange1", age=5)
        await world.answerable()
        assert (await world.queries.statistic("lowest", BTC, None, Range("1m"))).exchange in EXCHANGES
        assert (await world.queries.statistic("highest", BTC, None, Range("1m"))).exchange == "exchange1"


async def test_a_span_without_updates_is_no_data(autojump_clock, filling):
    world = World(filling=filling)
    async with world.running():
        world.send_one(1.0)
        await trio.sleep(70)
        for period in ("1s", "1m"):
            with pytest.raises(NoData):
                await world.queries.statistic("average", BTC, None, Range(period))
            with pytest.raises(NoData):
                await world.queries.summary(BTC, None, Range(period))
            assert await world.queries.statistics("average", None, None, Range(period)) == []
        assert (await world.queries.summary(BTC, None, Range("2m"))).updates == 1


@pytest.mark.parametrize("price", [5e-324, 2e-07, 1e308, 1.7976931348623157e308])
async def test_averages_of_extreme_prices_are_numbers(autojump_clock, filling, price):
    """Sums can overflow even if no price does."""
    world = World(filling=filling)
    async with world.running():
        await until(lambda: world.flusher.up)
        for exchange in EXCHANGES:
            for _ in range(10):
                world.send_one(price, exchange=exchange, age=3)
        await world.answerable()
        assert (await world.queries.statistic("average", BTC, None, Range("1m"))).price == price


# ---- who is meant ----


async def test_questions_without_an_exchange_are_about_the_mode_alone(autojump_clock, filling):
    """Generated data is never mixed in; it is returned if asked for by name."""
    mode = list(EXCHANGES)
    world = World(mode_exchanges=mode, filling=filling)
    async with world.running():
        await until(lambda: world.flusher.up)
        world.send_one(1.0, exchange="exchange1", age=5)
        world.send_one(999.0, exchange="test1", age=3)
        await world.answerable()
        assert (await world.queries.latest(BTC, None)).exchange == "exchange1"
        assert (await world.queries.summary(BTC, None, Range("1m"))).max_price == 1.0
        assert [each.exchange for each in await world.queries.latest_of_all(None, None)] == ["exchange1"]
        assert (await world.queries.latest(BTC, ("test1",))).price == 999.0
        assert (await world.queries.summary(BTC, ("test1",), Range("1m"))).updates == 1
        mode[:] = TEST_EXCHANGES
        assert (await world.queries.latest(BTC, None)).exchange == "test1"
        assert (await world.queries.summary(BTC, None, Range("1m"))).max_price == 999.0


async def test_what_is_not_configured_is_told_with_what_is(autojump_clock, filling):
    world = World(filling=filling)
    async with world.running():
        with pytest.raises(UnknownSymbol) as symbol:
            await world.queries.latest("XRPUSDT", None)
        assert (symbol.value.symbol, symbol.value.known) == ("XRPUSDT", SYMBOLS)
        with pytest.raises(UnknownExchange) as exchange:
            await world.queries.statistic("lowest", BTC, ("exchange9",), Range("1m"))
        assert exchange.value.known == (*EXCHANGES, *TEST_EXCHANGES)
        with pytest.raises(UnknownSymbol):
            await world.queries.candles("XRPUSDT", None, "1m", None, None, 5)
        with pytest.raises(UnknownExchange):
            await world.queries.latest_of_all(None, ("exchange9",))
        with pytest.raises(BadPeriod):
            await world.queries.summary(BTC, None, Range("1x"))
