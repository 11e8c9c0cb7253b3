"""The live stream on a virtual clock, with each filling of its port: who gets which events, and when."""

from __future__ import annotations

import random
from contextlib import ExitStack, asynccontextmanager
from copy import copy

import pytest
import trio
from builders import (
    BOOK,
    EXCHANGES,
    NOON,
    REDIS_ALONE,
    SEEDS,
    SYMBOLS,
    TEST_EXCHANGES,
    WallClock,
    batch_of,
    only,
    run_virtual,
)
from hypothesis import given, settings
from redis_filling import POLL_SECONDS, RedisBars

from marketflow.adapters.cache.memory import MemoryWindow
from marketflow.app.answers import Latest, TooManyClients, UnknownSymbol
from marketflow.app.share.book import Book
from marketflow.app.share.known_bars import BookBars
from marketflow.app.stream.subscriptions import HEARTBEAT, LONGEST_TICK, TICK, PriceStream
from marketflow.app.stream.turns import MOST_BEHIND, SEND_SECONDS
from marketflow.domain.bars import Bar
from marketflow.domain.periods import MINUTE, Span

BTC, ETH = SYMBOLS
ONE, TWO = EXCHANGES
(TEST,) = TEST_EXCHANGES
PAIRS = [(name, symbol) for name in (*EXCHANGES, *TEST_EXCHANGES) for symbol in SYMBOLS]


class SlowWindow(MemoryWindow):
    """A window whose bars take a while to read."""

    read_seconds = 0.0

    async def all_bars(self, pairs):
        found = await super().all_bars(pairs)
        await trio.sleep(self.read_seconds)
        return found


class Streaming:
    """A stream over a book that the test fills, or over a window that has the book's bars."""

    def __init__(self, filling, **options):
        self.book = Book(
            boot="boot1",
            limits=dict.fromkeys([*EXCHANGES, *TEST_EXCHANGES], 10**9),
            window_length=MINUTE,
            replay_memory=2**20,
            interval=MINUTE,
        )
        self.book.begin(NOON)
        self.window = SlowWindow(boot="boot1")
        self.filling = filling
        if filling == BOOK:
            self.bars = BookBars(self.book, window_length=MINUTE)
        else:
            self.bars = RedisBars(self.window, PAIRS, clock=WallClock(), interval=MINUTE)
        self.exchanges = EXCHANGES
        self.stopping = trio.Event()
        self.stream = PriceStream(
            bars=self.bars,
            pairs=PAIRS,
            exchanges_of_mode=lambda: self.exchanges,
            check=self.check,
            **{"most_clients": 10_000, **options},
        )

    def check(self, symbols, _):
        if symbols == ("NOSUCH",):
            raise UnknownSymbol("NOSUCH", SYMBOLS)

    def update(self, exchange, symbol, *prices, at=0):
        """Send updates of one pair, all with the same time (ms after noon)."""
        self.book.apply(batch_of(exchange, [(symbol, price, NOON + at) for price in prices]))
        self.write((exchange, symbol))

    def adopt(self, pair, fields):
        """Learn of bars that an earlier boot has made."""
        self.book.bars.adopt(pair, fields)
        self.write(pair)

    def write(self, pair):
        """Write all bars of the pair to Redis, at once."""
        self.window.stored_bars[pair] = self.book.bars.fields(pair, Span(0, 2 * NOON))

    def subscribed(self, symbol=None, exchange=None, since=None):
        return self.stream.subscribed(only(symbol), only(exchange), since)


@asynccontextmanager
async def streaming(filling, **options):
    world = Streaming(filling, **options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.stream.run, world.stopping)
        yield world
        world.stopping.set()


def told(events):
    return [(event.latest.exchange, event.latest.symbol, event.latest.price) for event in events]


async def nothing_more(client, seconds=1.0):
    """Check that no event comes for so long."""
    with trio.move_on_after(seconds) as scope:
        events = await client.receive()
        raise AssertionError(events)
    assert scope.cancelled_caught


# ---- what is told ----


async def test_it_begins_with_the_newest_of_each_pair(autojump_clock, filling):
    """They come in the order of their times, at once, and only from the mode's exchanges."""
    async with streaming(filling) as world:
        world.update(ONE, BTC, 1.0, 2.0)
        world.update(TEST, ETH, 9.0)
        world.update(TWO, BTC, 3.0)
        world.update(TWO, ETH, 4.0)
        world.update(ONE, BTC, 5.0, at=1)
        with world.subscribed() as client:
            began = trio.current_time()
            events = await client.receive()
            assert trio.current_time() == began
            assert told(events) == [(TWO, BTC, 3.0), (TWO, ETH, 4.0), (ONE, BTC, 5.0)]
            await nothing_more(client)


async def test_it_begins_with_the_newest_also_after_a_time_without_clients(autojump_clock, filling):
    """Meanwhile nobody has read the bars, and reading them takes a while."""
    async with streaming(filling) as world:
        world.window.read_seconds = 0.003
        world.update(ONE, BTC, 1.0)
        with world.subscribed() as client:
            [first] = await client.receive()
        await trio.sleep(100)
        world.update(ONE, BTC, 2.0)
        world.update(TWO, ETH, 3.0)
        with world.subscribed() as client:
            assert told(await client.receive()) == [(ONE, BTC, 2.0), (TWO, ETH, 3.0)]
        with world.subscribed(since=first.id) as client:
            assert told(await client.receive()) == [(ONE, BTC, 2.0), (TWO, ETH, 3.0)]


async def test_an_event_is_as_the_latest_price(autojump_clock, filling):
    async with streaming(filling) as world:
        world.update(ONE, BTC, 0.1 + 0.2, at=7)
        with world.subscribed() as client:
            [event] = await client.receive()
            assert event.latest == Latest(BTC, ONE, 0.1 + 0.2, NOON + 7, "memory")


async def test_what_comes_slowly_is_told_one_by_one(autojump_clock, filling):
    async with streaming(filling) as world:
        with world.subscribed() as client:
            for n in range(50):
                for exchange in EXCHANGES:
                    await trio.sleep(TICK)
                    world.update(exchange, BTC, n + 1.0, at=n)
                    assert told(await client.receive()) == [(exchange, BTC, n + 1.0)]


async def test_an_update_is_told_within_a_tick(autojump_clock, filling):
    later = POLL_SECONDS if filling == REDIS_ALONE else 0
    async with streaming(filling) as world:
        with world.subscribed() as client:
            for pause in (0.0, TICK / 3, TICK, 1.0):
                world.update(ONE, BTC, 1.0)
                began = trio.current_time()
                await client.receive()
                assert trio.current_time() - began <= TICK + SEND_SECONDS + later
                await trio.sleep(pause)


async def test_updates_are_told_even_if_reading_the_bars_takes_long(autojump_clock, filling):
    """A read is never given up half-way to begin another one."""
    async with streaming(filling) as world:
        world.window.read_seconds = 1.5 * LONGEST_TICK
        with world.subscribed() as client:
            for n in range(3):
                world.update(ONE, BTC, n + 1.0, at=n)
                with trio.fail_after(3 * world.window.read_seconds + LONGEST_TICK):
                    assert told(await client.receive()) == [(ONE, BTC, n + 1.0)]


async def test_updates_do_not_wait_for_others_that_cannot_be_read(autojump_clock, filling):
    """In a cluster reading hangs if the shard of one exchange of many does."""
    async with streaming(filling) as world:
        plain, hanging = copy(world.bars), False

        async def catch_up(pairs):
            if hanging:
                await trio.sleep_forever()
            await plain.catch_up(pairs)

        world.bars.catch_up, world.bars.wait_for_updates = catch_up, plain.wait_for_updates
        with world.subscribed() as client:
            world.update(ONE, BTC, 1.0)
            await client.receive()
            hanging = True
            await trio.sleep(2 * LONGEST_TICK)
            world.update(ONE, BTC, 2.0, at=1)
            with trio.fail_after(LONGEST_TICK):
                assert told(await client.receive()) == [(ONE, BTC, 2.0)]


async def test_a_client_begins_without_reading_what_it_does_not_want(autojump_clock, filling):
    """Nor what belongs to the other mode: its shard may hang."""
    async with streaming(filling) as world:
        asked, plain = [], world.bars.catch_up

        async def catch_up(pairs):
            asked.append([*pairs])
            await plain(pairs)

        world.update(ONE, BTC, 1.0)
        world.bars.catch_up, world.bars.wait_for_updates = catch_up, copy(world.bars).wait_for_updates
        for symbol, exchange, expected in (
            (None, None, {(name, symbol) for name in EXCHANGES for symbol in SYMBOLS}),
            (BTC, ONE, {(ONE, BTC)}),
        ):
            with world.subscribed(symbol, exchange) as client:
                assert told(await client.receive()) == [(ONE, BTC, 1.0)]
            assert set(asked.pop()) == expected
            assert not asked


async def test_earlier_boots_bars_are_told_at_the_beginning(autojump_clock, filling):
    async with streaming(filling) as world:
        world.adopt((ONE, BTC), {(NOON, "boot0"): Bar.of([NOON + 3], [7.0])})
        with world.subscribed() as client:
            assert told(await client.receive()) == [(ONE, BTC, 7.0)]


async def test_earlier_boots_bars_are_told_also_when_they_are_read_late(autojump_clock, filling):
    """Redis may have been away at the start. Ids still grow."""
    async with streaming(filling) as world:
        world.update(ONE, ETH, 1.0)
        with world.subscribed() as client:
            [first] = await client.receive()
            world.adopt((ONE, BTC), {(NOON, "boot0"): Bar.of([NOON + 3], [7.0])})
            [second] = await client.receive()
            assert told([second]) == [(ONE, BTC, 7.0)]
            assert first.id < second.id


async def test_a_late_update_is_not_told(autojump_clock, filling):
    """The newest update has the greatest timestamp; of equal ones it is the later received."""
    async with streaming(filling) as world:
        with world.subscribed() as client:
            world.update(ONE, BTC, 1.0, at=10)
            assert told(await client.receive()) == [(ONE, BTC, 1.0)]
            world.update(ONE, BTC, 2.0, at=9)
            await nothing_more(client)
            world.update(ONE, BTC, 3.0, at=10)
            assert told(await client.receive()) == [(ONE, BTC, 3.0)]


@pytest.mark.parametrize(
    ("symbol", "exchange", "expected"),
    [
        (None, None, [(ONE, BTC), (ONE, ETH), (TWO, BTC), (TWO, ETH)]),
        (BTC, None, [(ONE, BTC), (TWO, BTC)]),
        (None, TWO, [(TWO, BTC), (TWO, ETH)]),
        (ETH, ONE, [(ONE, ETH)]),
        (None, TEST, [(TEST, BTC), (TEST, ETH)]),
        (BTC, TEST, [(TEST, BTC)]),
    ],
)
async def test_filters(autojump_clock, symbol, exchange, expected, filling):
    """They apply from the beginning on; an exchange of the other mode may be requested."""
    async with streaming(filling) as world:
        with world.subscribed(symbol, exchange) as client:
            for _ in range(2):
                for pair in PAIRS:
                    world.update(*pair, 1.0)
                assert [told[:2] for told in told(await client.receive())] == expected


async def test_after_a_switch_it_goes_on_with_the_other_mode(autojump_clock, filling):
    """No update of the old mode is sent any more, not even one that entered before."""
    async with streaming(filling) as world:
        with world.subscribed() as client, world.subscribed(None, ONE) as of_one:
            world.update(ONE, BTC, 1.0)
            assert told(await client.receive()) == told(await of_one.receive()) == [(ONE, BTC, 1.0)]
            world.update(ONE, BTC, 2.0)
            world.exchanges = TEST_EXCHANGES
            await nothing_more(client)
            assert told(await of_one.receive()) == [(ONE, BTC, 2.0)]
            world.update(TEST, BTC, 3.0)
            assert told(await client.receive()) == [(TEST, BTC, 3.0)]
            world.exchanges = EXCHANGES
            world.update(ONE, BTC, 4.0)
            assert told(await client.receive()) == told(await of_one.receive()) == [(ONE, BTC, 4.0)]


async def test_a_switch_while_a_client_waits_for_its_turn(autojump_clock, filling):
    async with streaming(filling) as world:
        world.update(ONE, BTC, 1.0)
        world.update(TEST, BTC, 2.0)
        found = []

        async def receive():
            with world.subscribed() as client:
                found.extend(told(await client.receive()))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(receive)
            await trio.sleep(20 * SEND_SECONDS)
            world.exchanges = TEST_EXCHANGES
        before = found.count((ONE, BTC, 1.0))
        assert 15 < before < 35
        assert found[before:] == [(TEST, BTC, 2.0)] * (50 - before)


# ---- going on after a break ----


async def test_what_a_client_has_had_is_not_told_again(autojump_clock, filling):
    async with streaming(filling) as world:
        for pair in PAIRS[:4]:
            world.update(*pair, 1.0)
        with world.subscribed() as client:
            events = await client.receive()
        with world.subscribed(since=events[1].id) as client:
            assert told(await client.receive()) == told(events[2:])
        with world.subscribed(since=events[-1].id) as client:
            await nothing_more(client)
            world.update(ONE, BTC, 2.0)
            world.update(ONE, BTC, 3.0)
            assert told(await client.receive()) == [(ONE, BTC, 3.0)]


async def test_an_id_that_no_event_has_had_is_as_good_as_none(autojump_clock, filling):
    """An earlier boot may have had a clock that was ahead: no client must wait for that time."""
    async with streaming(filling) as world:
        world.update(ONE, BTC, 1.0)
        with world.subscribed() as client:
            [event] = await client.receive()
        for since in (event.id + 1, 2**63):
            with world.subscribed(since=since) as client:
                assert told(await client.receive()) == [(ONE, BTC, 1.0)]


# ---- slow clients, many clients ----


async def test_a_slow_client_gets_the_newest_once(autojump_clock, filling):
    async with streaming(filling) as world:
        with world.subscribed() as client:
            for n in range(1_000):
                world.update(ONE, BTC, n + 1.0, at=n)
                world.update(TWO, ETH, n + 2.0, at=n)
                await trio.sleep(0.02)
            assert told(await client.receive()) == [(ONE, BTC, 1_000.0), (TWO, ETH, 1_001.0)]
            await nothing_more(client)


async def test_all_clients_get_the_same_event(autojump_clock, filling):
    """So it is encoded once."""
    async with streaming(filling) as world:
        world.update(ONE, BTC, 1.0)
        with world.subscribed() as one, world.subscribed(BTC, ONE) as other:
            assert (await one.receive())[0] is (await other.receive())[0]


async def count_sends(world, clients, seconds):
    """How often each client gets events, of updates that never stop."""
    counts = [0] * clients

    async def receive(number, client):
        while await client.receive() is not None:
            counts[number] += 1

    async def update():
        while True:
            world.update(ONE, BTC, 1.0)
            await trio.sleep(0.001)

    with ExitStack() as stack:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(update)
            for number in range(clients):
                nursery.start_soon(receive, number, stack.enter_context(world.subscribed()))
            await trio.sleep(seconds)
            nursery.cancel_scope.cancel()
    return counts


async def test_a_client_that_is_alone_gets_every_tick(autojump_clock, filling):
    async with streaming(filling) as world:
        [count] = await count_sends(world, 1, 1.0)
    assert count >= 0.8 / TICK


async def test_many_clients_share_what_can_be_sent(autojump_clock, filling):
    """They share evenly, and with any number there is at most one send each SEND_SECONDS."""
    async with streaming(filling) as world:
        counts = await count_sends(world, 300, 1.0)
    assert 0.8 / SEND_SECONDS <= sum(counts) <= (1.0 + MOST_BEHIND) / SEND_SECONDS
    assert max(counts) - min(counts) <= 1


async def test_a_row_of_sends_lets_others_run_between(autojump_clock, filling):
    """On a slow machine and after a pause they do not all send at once."""
    rounds = []

    async def receive(client):
        assert told(await client.receive()) == [(ONE, BTC, 1.0)]
        rounds.append(others)

    others = 0
    async with streaming(filling, heartbeat=10_000) as world:
        with ExitStack() as stack:
            async with trio.open_nursery() as nursery:
                for _ in range(100):
                    nursery.start_soon(receive, stack.enter_context(world.subscribed()))
                await trio.sleep(1)
                world.update(ONE, BTC, 1.0)
                while len(rounds) < 100:
                    await trio.lowlevel.checkpoint()
                    others += 1
                    autojump_clock.jump(1)  # as if each round took a second
    assert len(set(rounds)) == 100


async def test_nobody_looks_at_the_bars_for_nobody(autojump_clock, filling, monkeypatch):
    async with streaming(filling) as world:
        looks = []
        newest = world.bars.newest
        monkeypatch.setattr(world.bars, "newest", lambda pair: looks.append(pair) or newest(pair))
        for n in range(10):
            world.update(ONE, BTC, n + 1.0)
            await trio.sleep(1)
        assert looks == []
        with world.subscribed() as client:
            await client.receive()
        assert looks


async def test_so_many_clients_and_no_more(autojump_clock, filling):
    async with streaming(filling, most_clients=2) as world:
        with world.subscribed(), world.subscribed():
            assert world.stream.clients == 2
            with pytest.raises(TooManyClients) as caught, world.subscribed():
                pass
            assert caught.value.most == 2
            assert world.stream.clients == 2
        with world.subscribed():
            assert world.stream.clients == 1


@pytest.mark.parametrize(
    ("symbols", "exchanges", "wanted", "other"),
    [((BTC, ETH), (ONE,), (ONE, ETH), (TWO, ETH)), ((BTC,), (TWO, ONE), (TWO, BTC), (ONE, ETH))],
)
async def test_one_that_names_several_gets_those_and_no_others(
    autojump_clock, filling, symbols, exchanges, wanted, other
):
    """Other updates may wake it, but it is sent nothing."""
    async with streaming(filling) as world:
        with world.stream.subscribed(symbols, exchanges) as client:
            world.update(*wanted, 1.0)
            assert [(each.latest.exchange, each.latest.symbol) for each in await client.receive()] == [wanted]
            world.update(*other, 3.0)
            with trio.move_on_after(2.0) as quiet:
                await client.receive()
            assert quiet.cancelled_caught
            world.update(*wanted, 4.0, at=1)
            (event,) = await client.receive()
            assert event.latest.price == 4.0


async def test_one_that_asks_for_what_is_unknown_takes_no_place(autojump_clock, filling):
    async with streaming(filling) as world:
        with pytest.raises(UnknownSymbol), world.subscribed("NOSUCH"):
            pass
        assert world.stream.clients == 0


# ---- heartbeats, and the end ----


async def test_a_heartbeat_after_a_time_without_events(autojump_clock, filling):
    async with streaming(filling) as world:
        with world.subscribed() as client:
            for _ in range(3):
                began = trio.current_time()
                assert await client.receive() == ()
                assert trio.current_time() - began == pytest.approx(HEARTBEAT)
            await trio.sleep(HEARTBEAT - 1)
            world.update(ONE, BTC, 1.0)
            assert told(await client.receive()) == [(ONE, BTC, 1.0)]


async def test_events_of_others_do_not_keep_the_heartbeat_away(autojump_clock, filling):
    async with streaming(filling) as world:
        with world.subscribed(ETH) as client:
            async with trio.open_nursery() as nursery:

                async def update():
                    while True:
                        world.update(ONE, BTC, 1.0)
                        await trio.sleep(0.1)

                nursery.start_soon(update)
                assert await client.receive() == ()
                nursery.cancel_scope.cancel()
        assert trio.current_time() == pytest.approx(HEARTBEAT)


async def test_at_the_end_all_clients_are_told_at_once(autojump_clock, filling):
    """This includes clients that wait for events, for their turn, or come too late."""
    async with streaming(filling) as world:
        ends = []

        async def receive(client):
            while await client.receive() is not None:
                pass
            ends.append(trio.current_time())

        with ExitStack() as stack:
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(receive, stack.enter_context(world.subscribed(ETH)))
                for _ in range(1_000):
                    nursery.start_soon(receive, stack.enter_context(world.subscribed(BTC)))
                await trio.sleep(1)
                world.update(ONE, BTC, 1.0)
                await trio.sleep(TICK + (POLL_SECONDS if filling == REDIS_ALONE else 0))
                stopped = trio.current_time()
                world.stopping.set()
            with world.subscribed() as late:
                assert await late.receive() is None
        assert ends == [stopped] * 1_005


# ---- all together ----


@settings(max_examples=12, deadline=None)  # an example takes a second of processor time
@given(SEEDS)
def test_whatever_comes_whoever_asks(filling, seed):
    """Ids grow; only updates that were the newest of their pair are sent, and the last one is sent."""
    rng = random.Random(seed)

    async def main():
        # A heartbeat ends a client: later than all updates, but early enough that the rest is not long.
        async with streaming(filling, heartbeat=6.0) as world, trio.open_nursery() as nursery:
            history = {pair: [] for pair in PAIRS}

            async def client(symbol, exchange):
                last, cursor, given = {}, None, 0
                with ExitStack() as stack:
                    subscription = stack.enter_context(world.subscribed(symbol, exchange))
                    while events := await subscription.receive():
                        for event in events:
                            pair = event.latest.exchange, event.latest.symbol
                            assert cursor is None or event.id > cursor
                            assert symbol in {None, event.latest.symbol}
                            cursor, last[pair] = event.id, event.latest
                            assert (event.latest.price, event.latest.timestamp) in history[pair]
                            given += 1
                        await trio.sleep(rng.choice([0, 0.001, 0.03, 0.5]))
                        if rng.random() < 0.1:  # it is disconnected, and reconnects
                            stack.close()
                            subscription = stack.enter_context(world.subscribed(symbol, exchange, cursor))
                exchanges = EXCHANGES if exchange is None else (exchange,)
                wanted = {
                    pair: known[-1]
                    for pair, known in history.items()
                    if known and pair[0] in exchanges and symbol in {None, pair[1]}
                }
                assert {pair: (each.price, each.timestamp) for pair, each in last.items()} == wanted

            for _ in range(5):
                nursery.start_soon(client, rng.choice([None, *SYMBOLS]), rng.choice([None, ONE, TEST]))
            newest = dict.fromkeys(PAIRS, 0)
            for n in range(100):
                pair, at = rng.choice(PAIRS), rng.randrange(5_000)
                world.update(*pair, n + 1.0, at=at)
                if at >= newest[pair]:
                    newest[pair] = at
                    history[pair].append((n + 1.0, NOON + at))
                await trio.sleep(rng.choice([0, 0.001, 0.1]))

    run_virtual(main)
