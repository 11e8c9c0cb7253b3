"""Rows compared with what bars say of themselves: foreign bars may hide that Redis has lost some."""

from __future__ import annotations

import msgspec
import pytest
import trio
from builders import EXCHANGES, NOON, SYMBOLS, World, batch_of, play, until

from marketflow.app.share.book import Book
from marketflow.app.share.sequences import PER_MS
from marketflow.domain.bars import Bar
from marketflow.domain.packed_minute import by_minute
from marketflow.domain.periods import MINUTE, SECOND, Span

PAIR = (EXCHANGES[0], SYMBOLS[0])
GENUINE = Bar.of([NOON + 5, NOON + 7], [1.0, 2.0], NOON * PER_MS)
FOREIGN = msgspec.structs.replace(Bar.of([NOON + SECOND], [3.0], NOON * PER_MS), count=3, max=-1.0)
ROW = Bar.of([NOON + number for number in range(5)], [7.0] * 5)


def book_of(*, row=ROW):
    """Two updates are left of the five in the row, and a foreign bar that says it has three."""
    book = Book(
        boot="boot2",
        limits=dict.fromkeys(EXCHANGES, 100),
        window_length=MINUTE,
        replay_memory=2**20,
        interval=MINUTE,
    )
    book.begin(NOON + MINUTE)
    bars = {(NOON, "boot1"): GENUINE, (NOON + SECOND, "boot1"): FOREIGN}
    # A newer minute, since the newest one of a pair is looked at when it is read.
    bars[NOON + MINUTE, "boot1"] = Bar.of([NOON + MINUTE], [3.0], NOON * PER_MS)
    book.bars.adopt_minutes(PAIR, by_minute(bars).values())
    span = Span(NOON, NOON + MINUTE)
    assert book.rows.counts(PAIR, span, own=False) == {NOON: 5}
    book.rows.believed.believe(PAIR, {NOON: row})
    return book


async def test_a_row_answers_as_soon_as_bars_turn_out_to_be_foreign():
    """A question that looks at the bars sees it by then, and can read once more."""
    book = book_of()
    assert book.rows.adopted.reach == 0
    assert book.bars.bar(PAIR, Span(NOON, NOON + MINUTE)) == GENUINE
    assert book.rows.adopted.reach == NOON + MINUTE
    assert book.rows.unwritten_between(PAIR, Span(NOON, NOON + MINUTE)) == {NOON: ROW}


async def test_a_row_that_is_made_of_such_bars_is_the_one_that_has_more():
    book = book_of()
    (due, _) = book.rows.take_due(NOON + 2 * MINUTE)
    assert book.rows.aggregate(due, {}).bar == ROW


async def test_a_late_update_is_added_to_the_row():
    """It is what has the bars looked at."""
    book = book_of()
    book.apply(batch_of(PAIR[0], [(PAIR[1], 9.0, NOON + 30 * SECOND)]))
    found = book.rows.unwritten_between(PAIR, Span(NOON, NOON + MINUTE))[NOON]
    assert (found.count, found.max) == (6, 9.0)


async def test_a_row_without_more_updates_is_not_adopted():
    book = book_of(row=GENUINE)
    assert book.bars.bar(PAIR, Span(NOON, NOON + MINUTE)) == GENUINE
    assert book.rows.adopted.reach == 0


@pytest.mark.parametrize("interval", [MINUTE, MINUTE // 2, 2 * MINUTE])
async def test_foreign_bars_do_not_hide_what_redis_has_lost(autojump_clock, interval):
    """They say that they have as many updates as were lost."""
    world = World(interval=interval)
    async with world.running():
        await play(world, 190)
        await trio.sleep(10)
    stored = world.window.stored_bars[PAIR]
    field = next(each for each in stored if each[0] >= NOON + MINUTE)
    lost = stored.pop(field)
    world = world.successor("boot2")
    read = world.window.all_bars

    async def all_bars(pairs):
        found = {pair: dict(minutes) for pair, minutes in (await read(pairs)).items()}
        foreign = msgspec.structs.replace(lost, max=-1.0)
        start = field[0] // MINUTE * MINUTE
        bars = {(second, boot): bar for second, boot, bar in found[PAIR][start]} | {field: foreign}
        found[PAIR] |= by_minute(bars)
        return found

    world.window.all_bars = all_bars
    async with world.running():
        await until(lambda: world.standing.history_known)
        world.send(PAIR[0], [(PAIR[1], 9.0, NOON + MINUTE + 5)])
        await trio.sleep(5)
        world.check_rows(NOON + 2 * MINUTE)
        for candle in (await world.queries.candles(PAIR[1], (PAIR[0],), "1m", NOON, None, 9)).candles:
            sent = [each for each in world.of(PAIR) if candle.start <= each.timestamp < candle.end]
            assert candle.updates == len(sent)
