from __future__ import annotations

import json
import random

import pytest
import trio

from marketflow.adapters.exchange.fair import FairPrices
from marketflow.adapters.exchange.generator import GeneratorSource
from marketflow.adapters.exchange.volumes import Volumes
from marketflow.adapters.exchange.walk import Walk
from marketflow.app.ingest.backoff import Backoff
from marketflow.app.ingest.feeds import Feed
from marketflow.domain.prices import SYMBOLS


class WallClock:
    def now(self) -> int:
        return 1_795_343_351_549 + round(trio.current_time() * 1_000)


class FixedClock:
    def now(self) -> int:
        return 1_795_343_351_549


def source_of(rate=10.0, seed=1) -> GeneratorSource:
    """A generator whose prices move by a step with each tick, so that lost or repeated ticks show."""
    return GeneratorSource("test1", Walk(SYMBOLS, random.Random(seed)), rate, WallClock(), decode=None)


def parsed(lines: bytes) -> list[dict]:
    assert lines.endswith(b"\n")
    return [json.loads(line) for line in lines.splitlines()]


async def test_a_payload_is_one_tick_of_all_symbols(autojump_clock):
    """It has the current time of the wall clock."""
    source = source_of()
    assert source.exchange == "test1"
    ticks = source.ticks()
    for _ in range(3):
        updates = parsed(await ticks.next())
        assert [update["symbol"] for update in updates] == list(SYMBOLS)
        assert {update["timestamp"] for update in updates} == {WallClock().now()}


async def test_ticks_tell_volumes_if_there_are_some(autojump_clock):
    """Each line has its own; prices are the same."""
    lines = []
    for volumes in (Volumes(SYMBOLS, "1"), None):
        prices = FairPrices("test1", SYMBOLS, 3)
        source = GeneratorSource("test1", prices, 10, FixedClock(), decode=None, volumes=volumes)
        lines.append(parsed(await source.ticks().next()))
    telling, silent = lines
    assert [update["price"] for update in telling] == [update["price"] for update in silent]
    assert len({update["volume"] for update in telling}) == len(SYMBOLS)
    assert {update["side"] for update in telling} <= {"buy", "sell"}
    assert not any("volume" in update for update in silent)


@pytest.mark.parametrize("rate", [0.5, 3, 10, 1_000])
async def test_ticks_do_not_drift(autojump_clock, rate):
    """If the reader is late now and then, the tick after that is on time again."""
    start = trio.current_time()
    ticks = source_of(rate).ticks()
    for tick in range(500):
        await ticks.next()
        assert trio.current_time() - start == pytest.approx(tick / rate, abs=0.3 / rate)
        if tick % 3 == 0:
            await trio.sleep(1.2 / rate)


async def test_a_late_reader_gets_only_a_little_at_once(autojump_clock):
    ticks = source_of(10).ticks()
    await ticks.next()
    await trio.sleep(1_000)
    awake = trio.current_time()
    at_once = 0
    while True:
        await ticks.next()
        if trio.current_time() > awake:
            break
        at_once += 1
    assert 1 <= at_once <= 6
    await ticks.next()
    assert trio.current_time() - awake > 0.1


async def test_a_cancelled_wait_takes_no_tick_with_it(autojump_clock):
    undisturbed = source_of()
    disturbed = source_of()
    calm = undisturbed.ticks()
    nervous = disturbed.ticks()
    for _ in range(3):
        for _ in range(5):
            with trio.move_on_after(0.01):
                await nervous.next()
                break
    prices = [[update["price"] for update in parsed(await calm.next())] for _ in range(4)]
    assert [update["price"] for update in parsed(await nervous.next())] in prices


async def test_prices_walk_on_from_connection_to_connection(autojump_clock):
    cut, whole = source_of(), source_of()
    received = []
    for _ in range(4):
        ticks = cut.ticks()
        received.append(await ticks.next())
    ticks = whole.ticks()
    expected = [await ticks.next() for _ in range(4)]
    assert [[u["price"] for u in parsed(lines)] for lines in received] == [
        [u["price"] for u in parsed(lines)] for lines in expected
    ]
    assert len(set(received)) == 4


async def test_prices_are_of_the_time_of_their_tick(autojump_clock):
    """So generators of one market agree, independent of when each was connected."""
    prices = FairPrices("test1", SYMBOLS, 3)
    source = GeneratorSource("test1", FairPrices("test1", SYMBOLS, 3), 10, WallClock(), decode=None)
    for _ in range(3):
        ticks = source.ticks()
        for _ in range(5):
            updates = parsed(await ticks.next())
            expected = prices.at(updates[0]["timestamp"])
            assert [(update["symbol"], update["price"]) for update in updates] == list(expected)
        await trio.sleep(7.3)


async def test_ticks_that_are_further_apart_than_the_idle_timeout(autojump_clock):
    send, receive = trio.open_memory_channel(100)
    stopping = trio.Event()
    feed = Feed(
        source_of(rate=0.05),
        backoff=Backoff(1.0, 1.0, random.Random(1)),
        idle_timeout=5.0,
        last_well=lambda: None,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.run, send, stopping)
        await trio.sleep(101)
        stopping.set()
    with receive:
        assert len([chunk async for chunk in receive]) == 6
    assert feed.reconnects == 0
