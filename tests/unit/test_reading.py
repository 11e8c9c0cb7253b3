"""The bars of the open minutes are read first, and questions about these wait for no others."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
from builders import EXCHANGES, NOON, SYMBOLS, World, play, until
from structlog.testing import capture_logs

from marketflow.app.answers import NothingCanAnswer
from marketflow.app.ports import StoreAway
from marketflow.domain.periods import MINUTE, Span, ceil_to, floor_to

PAIRS = [(exchange, SYMBOLS[0]) for exchange in EXCHANGES]


async def next_boot(read_seconds):
    """A boot whose reading of all bars takes so long, after one that was killed within the second minute."""
    first = World()
    async with first.running():
        await play(first, 100)
        await trio.sleep(0.5)
    await trio.sleep(5)  # Its lease expires.
    world = first.successor("boot2")
    world.window.read_seconds = read_seconds
    return world


@asynccontextmanager
async def reading(world):
    """The boot at work, as soon as it has begun to read all bars."""
    await world.lease_window()
    async with world.running():
        await until(lambda: world.window.reads)
        yield


async def updates_from(world, start):
    """How many updates the candles from then on (ms) have, as they are answered."""
    found = await world.queries.candles(SYMBOLS[0], None, "1m", start, None, 100)
    return sum(candle.updates for candle in found.candles)


def sent_from(world, start):
    return sum(update.timestamp >= start and update.symbol == SYMBOLS[0] for update in world.sent)


async def test_the_open_minute_is_answered_while_the_rest_is_unread(autojump_clock):
    world = await next_boot(0.5)
    async with reading(world):
        opened, asked = floor_to(world.now, MINUTE), trio.current_time()
        assert await updates_from(world, opened) == sent_from(world, opened) > 0
        world.send_one(7.0)
        assert await updates_from(world, opened) == sent_from(world, opened)
        assert trio.current_time() == asked, "it has waited for nothing"
        assert not world.standing.history_known


@pytest.mark.parametrize("postgres_away", [False, True])
async def test_a_newest_price_before_the_open_minutes_waits_for_all_bars(autojump_clock, postgres_away):
    """Rows may have an older price only, or none."""
    first = World()
    async with first.running():
        first.send_one(1.0)
        await trio.sleep(70)
        first.send_one(2.0)
        await trio.sleep(0.5)
    await trio.sleep(170)
    world = first.successor("boot2")
    world.window.read_seconds = 2.5  # longer than a question waits for Redis alone
    world.store.away = postgres_away
    async with reading(world):
        assert not world.standing.history_known
        assert (await world.queries.latest(SYMBOLS[0], None)).price == 2.0
        assert [each.price for each in await world.queries.latest_of_all(None, None)] == [2.0]


async def test_a_question_does_not_wait_for_a_reading_that_fails(autojump_clock):
    world = await next_boot(0.0)

    async def fail(_):
        world.window.reads += 1
        await trio.sleep(0.3)
        world.window.away = True
        raise StoreAway("it fails in the middle")

    world.window.all_bars = fail
    async with reading(world):
        asked = trio.current_time()
        await world.spans.of(PAIRS).over(Span(world.now - 30 * MINUTE, world.now), world.now)
        assert trio.current_time() - asked < 0.5


async def test_a_question_about_the_hour_waits_for_all_bars(autojump_clock):
    world = await next_boot(0.5)
    async with reading(world):
        assert await updates_from(world, NOON) == sent_from(world, NOON) > sent_from(world, NOON + MINUTE)
        assert world.standing.history_known


async def test_a_span_that_reaches_behind_what_was_read_is_not_answered_in_part(autojump_clock):
    """All bars are not read within a question's patience: the candle is not known, a period is cut."""
    world = await next_boot(5.0)
    async with reading(world):
        opened = floor_to(world.now, MINUTE)
        with pytest.raises(NothingCanAnswer):
            await updates_from(world, opened - MINUTE)
        found = await world.spans.of(PAIRS).over(Span(world.now - 30 * MINUTE, world.now), world.now)
        assert found.span.start == opened
        assert sum(bar.count for bar in found.bars.values()) == sum(
            update.symbol == SYMBOLS[0] and update.timestamp in found.span for update in world.sent
        )
        assert not world.standing.history_known
        await until(lambda: world.standing.history_known)
        assert await updates_from(world, NOON) == sent_from(world, NOON)


async def test_bars_that_are_read_twice_count_once(autojump_clock):
    """Also those that this boot has added to in between, and the rows that are made of them."""
    world = await next_boot(0.5)
    async with reading(world):
        await updates_from(world, floor_to(world.now, MINUTE))
        world.send_one(7.0)
        world.send_one(8.0, age=3_000)
        await play(world, 20)
        assert await updates_from(world, NOON) == sent_from(world, NOON)
        world.check_rows(NOON + 2 * MINUTE)


async def test_no_row_is_made_of_the_newest_bars_alone(autojump_clock):
    """The interval in which this boot began ends while the rest is unread: its row waits."""
    world = await next_boot(60.0)
    async with reading(world):
        await trio.sleep(30)
        assert world.now > NOON + 2 * MINUTE + 2_000
        assert world.standing.known_from == NOON + MINUTE
        assert not any(end == NOON + 2 * MINUTE for _, _, end in world.store.rows)
        await until(lambda: world.standing.history_known, seconds=70)
        await trio.sleep(3)
        world.check_rows(NOON + 2 * MINUTE)


async def test_a_redis_that_does_not_allow_it_is_read_at_once(autojump_clock):
    world = await next_boot(0.5)
    world.window.refused.add("bars within")
    with capture_logs() as logs:
        async with reading(world):
            opened = floor_to(world.now, MINUTE)
            asked = trio.current_time()
            assert await updates_from(world, opened) == sent_from(world, opened)
            assert trio.current_time() - asked > 0.4, "it has waited for all bars"
    assert [each["event"] for each in logs].count("newest bars not read first") == 1


@pytest.mark.parametrize("minutes", [0, 5, 20])
async def test_minutes_are_read_first_only_if_they_are_few(autojump_clock, minutes):
    """After a long outage at the start they would be many, and be read twice."""
    world = await next_boot(0.0)
    spans = []
    read = world.window.bars_within

    async def bars_within(pairs, span):
        spans.append(span)
        return await read(pairs, span)

    world.window.bars_within = bars_within
    world.window.away = True
    async with world.running():
        began = world.book.began_at
        await trio.sleep(60 * minutes + 1)
        world.window.away = False
        await until(lambda: world.standing.history_known)
        first = floor_to(began, MINUTE) - MINUTE
        last = ceil_to(world.now + 5_000, MINUTE)
        assert spans == ([] if minutes == 20 else [Span(first, last)])
