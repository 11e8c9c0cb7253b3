"""Redis has lost bars while no service ran: the book adopts rows that have more than its bars."""

from __future__ import annotations

import attrs
import pytest
import trio
from builders import EXCHANGES, NOON, SYMBOLS, Sent, World, batch_of, lose_lock, play, until
from structlog.testing import capture_logs

from marketflow.app.share.adopted_rows import AdoptedRows
from marketflow.app.share.comparison_schedule import COMPARISON_SECONDS
from marketflow.domain.bars import Bar
from marketflow.domain.periods import HOUR, MINUTE, Range, Span

PAIR = (EXCHANGES[0], SYMBOLS[0])
MISSING = "bars missing from Redis"


async def first_boot(*, lost, seconds=64):
    """A boot writes a row of each pair and is killed; then Redis loses some seconds of these bars."""
    world = World()
    async with world.running():
        await play(world, seconds)
        world.check_rows(NOON + MINUTE)
        snapshot = world.window.snapshot()
    for pair in lost:
        world.window.stored_bars[pair] = dict(list(world.window.stored_bars[pair].items())[lost[pair] :])
    return world, snapshot


def send_late(world, *, each=1, price=1_000.0):
    """Late updates of the first minute, of every pair."""
    for exchange in EXCHANGES:
        for symbol in SYMBOLS:
            world.send(exchange, [(symbol, price + number, NOON + 10) for number in range(each)])


@pytest.mark.parametrize("lost", [{PAIR: 30}, {PAIR: 1}, {PAIR: 1_000}], ids=["half", "one second", "all"])
async def test_late_updates_are_added_to_rows_that_redis_has_lost_bars_of(lost, autojump_clock):
    """Also to the rows of other pairs, whose bars Redis has. Again and again."""
    world, _ = await first_boot(lost=lost)
    world = world.successor("boot2")
    async with world.running():
        await until(lambda: world.standing.history_known)
        for price in (1_000.0, 0.5, 2_000.0):
            send_late(world, price=price)
            await trio.sleep(5)
            world.check_rows(NOON + MINUTE)


async def test_late_updates_before_rows_were_compared_are_added_too(autojump_clock):
    """They are as many as the updates that Redis has lost: the numbers alone would not show it."""
    world, _ = await first_boot(lost={PAIR: 1})
    lost = len([each for each in world.of(PAIR) if each.timestamp < NOON + MINUTE]) - sum(
        bar.count for (second, _), bar in world.window.stored_bars[PAIR].items() if second < NOON + MINUTE
    )
    assert lost
    world = world.successor("boot2")
    world.window.away = True
    async with world.running():
        send_late(world, each=lost)
        await trio.sleep(5)
        world.window.away = False
        await trio.sleep(10)
        world.check_rows(NOON + MINUTE)


async def test_late_updates_that_came_while_postgresql_was_away_are_added(autojump_clock):
    world, _ = await first_boot(lost={PAIR: 30})
    world = world.successor("boot2")
    world.store.away = True
    async with world.running():
        send_late(world)
        await trio.sleep(10)
        world.store.away = False
        await trio.sleep(10)
        world.check_rows(NOON + MINUTE)


async def test_bars_that_come_back_are_not_counted_twice(autojump_clock):
    """Redis fails over to a replica that still has them."""
    world, snapshot = await first_boot(lost={PAIR: 30})
    world = world.successor("boot2")
    async with world.running():
        await until(lambda: world.standing.history_known)
        send_late(world)
        await trio.sleep(5)
        world.window.restore(snapshot)
        await trio.sleep(8)
        send_late(world, price=2_000.0)
        await trio.sleep(5)
        world.check_rows(NOON + MINUTE)


async def test_bars_of_a_boot_whose_clock_was_ahead_are_not_counted_twice(autojump_clock):
    """Its sequences are greater than ours."""
    world = World(begun=False)
    world.book.begin(world.now + 24 * HOUR)
    async with world.running():
        await play(world, 64)
    world.window.stored_bars[PAIR] = dict(list(world.window.stored_bars[PAIR].items())[30:])
    world = world.successor("boot2")
    async with world.running():
        await trio.sleep(4)
        send_late(world)
        await trio.sleep(5)
        world.check_rows(NOON + MINUTE)


async def bring_in(world, *, more=3):
    """Somebody brings in the row of the first minute, with more updates than are known."""
    key = (*PAIR, NOON + MINUTE)
    row = world.store.rows[key]
    extra = [(NOON + 20 + number, 5.0) for number in range(more)]
    for timestamp, price in extra:
        world.sent.insert(0, Sent(*PAIR, price, timestamp, -1))
    fuller = row.bar.merge(Bar.of(*map(list, zip(*extra, strict=True))))
    world.store.rows[key] = attrs.evolve(row, bar=fuller)


@pytest.mark.parametrize("ages", [(900, 100), (100, 900), (500, 500)], ids=["earlier", "later", "same"])
async def test_updates_of_one_second_before_and_after_the_adoption_are_counted_once(autojump_clock, ages):
    """The row has the first one already; the second is added, whichever has the earlier timestamp."""
    world, _ = await first_boot(lost={})
    world = world.successor("boot2")
    async with world.running():
        await until(lambda: world.standing.history_known)
        await trio.sleep(2)
        world.send(PAIR[0], [(PAIR[1], 1_000.0, NOON + ages[0])])
        await trio.sleep(3)
        await bring_in(world)
        await until(lambda: len(world.book.rows.adopted) == 1)
        world.send(PAIR[0], [(PAIR[1], 2_000.0, NOON + ages[1])])
        await trio.sleep(5)
        world.check_rows(NOON + MINUTE)


@pytest.mark.parametrize("first", [False, True], ids=["a later comparison", "the first comparison"])
@pytest.mark.parametrize("after", [False, True], ids=["before the answer", "after the answer"])
async def test_updates_that_come_while_rows_are_read_are_added(autojump_clock, monkeypatch, first, after):
    """The row that is read lacks them."""
    world, _ = await first_boot(lost={PAIR: 30} if first else {})
    world = world.successor("boot2")
    read, sent = world.store.bars, []

    async def slow(pairs, span, width):
        if not after:
            sent.append(world.send(PAIR[0], [(PAIR[1], 1_000.0 + len(sent), NOON + 10)]))
        found = await read(pairs, span, width)
        await trio.sleep(0.1)
        if after:
            sent.append(world.send(PAIR[0], [(PAIR[1], 1_000.0 + len(sent), NOON + 10)]))
        return found

    if first:
        monkeypatch.setattr(world.store, "bars", slow)
    async with world.running():
        await until(lambda: world.standing.history_known)
        await trio.sleep(2)
        if not first:
            await bring_in(world)
            monkeypatch.setattr(world.store, "bars", slow)
        await until(lambda: len(world.book.rows.adopted) == 1)
        monkeypatch.undo()
        await trio.sleep(5)
        assert sent
        world.check_rows(NOON + MINUTE)


async def test_an_adopted_row_does_not_keep_this_boot_from_going_on_behind_the_others():
    """Its own updates get greater sequences than those of a boot whose clock was ahead of ours."""
    book, last = World().book, NOON * 1_000 + 10**9
    book.rows.adopted.adopt(PAIR, NOON + MINUTE, Bar.of([NOON], [1.0]), lacks=None)
    book.apply(batch_of(PAIR[0], [(PAIR[1], 2.0, NOON)]))
    book.bars.adopt(PAIR, {(NOON, "other"): Bar.of([NOON], [3.0], last)})
    book.follow_others()
    assert book.bars.fields(PAIR, Span(NOON, NOON + 1))[NOON, "boot1"].open_sequence > last
    assert book.rows.adopted.of(PAIR, NOON + MINUTE).close == 2.0


async def test_only_changed_rows_are_compared(autojump_clock, monkeypatch):
    """Counting the bars of an hour takes milliseconds for each pair, and most rows never change."""
    world, _ = await first_boot(lost={PAIR: 30})
    world = world.successor("boot2")
    async with world.running():
        await until(lambda: world.standing.history_known)
        await trio.sleep(3)
        counted, counts = [], world.book.rows.counts

        def count(pair, span, *, own):
            counted.append((pair, span))
            return counts(pair, span, own=own)

        monkeypatch.setattr(world.book.rows, "counts", count)
        await trio.sleep(4 * COMPARISON_SECONDS)
        assert counted == []
        send_late(world)
        await trio.sleep(2 * COMPARISON_SECONDS)
        assert sorted(counted) == sorted((pair, Span(NOON, NOON + MINUTE)) for pair in world.pairs[:4])
        counted.clear()
        lose_lock(world.store)
        await trio.sleep(COMPARISON_SECONDS)
        assert {pair for pair, _ in counted} == set(world.pairs)
        world.check_rows(NOON + MINUTE)


async def test_an_adopted_row_that_postgresql_loses_is_written_again(autojump_clock):
    """With what was added to it: a standby has taken over that has neither."""
    world, _ = await first_boot(lost={PAIR: 30})
    world = world.successor("boot2")
    async with world.running():
        await until(lambda: world.standing.history_known)
        await trio.sleep(2)
        send_late(world)
        await trio.sleep(5)
        world.store.rows.clear()
        lose_lock(world.store)
        await trio.sleep(8)
        world.check_rows(NOON + MINUTE)


async def test_the_next_boot_adds_late_updates_too(autojump_clock):
    """It finds the row of two boots, the bars of one, and a part of those of the other."""
    world, _ = await first_boot(lost={PAIR: 30})
    for boot in ("boot2", "boot3"):
        world = world.successor(boot)
        async with world.running():
            await trio.sleep(4)
            assert world.standing.history_known
            send_late(world)
            await trio.sleep(5)
            world.check_rows(NOON + MINUTE)


async def test_rows_answer_and_the_loss_is_told_once(autojump_clock):
    """A question about the time before is answered from rows, late updates included."""
    world, _ = await first_boot(lost={PAIR: 30})
    world = world.successor("boot2")
    async with world.running():
        with capture_logs() as logs:
            await until(lambda: world.standing.history_known)
            send_late(world)
            await trio.sleep(20)
        assert [log["event"] for log in logs].count(MISSING) == 1
        assert world.bars.forgotten_to == NOON + MINUTE
        found = await world.queries.statistic("highest", PAIR[1], (PAIR[0],), Range("5m"))
        assert found.start <= NOON
        assert found.price == 1_000.0


async def test_what_was_adopted_is_forgotten_with_the_bars(autojump_clock):
    """By then no late update can come in. One that has yet to be written is kept until it is."""
    world, _ = await first_boot(lost={PAIR: 30})
    world = world.successor("boot2")
    async with world.running():
        await trio.sleep(4)
        assert len(world.book.rows.adopted) == 1
        world.store.refuses = lambda _: True
        send_late(world)
        world.book.bars.prune(world.now + 2 * HOUR)
        await trio.sleep(7)
        assert len(world.book.rows.adopted) == 1
        world.store.refuses = lambda _: False
        await trio.sleep(70)
        assert len(world.book.rows.adopted) == 0
        world.check_rows(NOON + MINUTE)


def test_a_span_of_thousands_of_years_costs_nothing():
    """A bar of somebody else may be as far ahead."""
    rows = AdoptedRows(MINUTE)
    rows.adopt(PAIR, NOON, Bar.of([NOON - 1], [1.0]), lacks=None)
    within = rows.within(PAIR, Span(NOON - HOUR, NOON + 1_000_000 * 24 * HOUR))
    assert list(within) == [NOON - MINUTE]
