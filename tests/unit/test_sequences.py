"""The sequences that a book gives to updates: greater than those of all boots before."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from builders import NOON, World, batch_of, lose_lock, summary_of, until
from hypothesis import given
from hypothesis import strategies as st

from marketflow.adapters.cache.memory import MemoryWindow
from marketflow.app.share.arrivals import Arrivals
from marketflow.app.share.sequences import MOST, PER_MS, PLACES, Sequences
from marketflow.domain.bars import Bar
from marketflow.domain.periods import SECOND, Span

PAIR = ("exchange1", "BTCUSDT")
BTC = PAIR[1]
TIMES = [NOON + 20_300, NOON + 20_300, NOON + 19_000, NOON + 20_300, NOON + 19_000]
"""Timestamps, some of them equal."""


def send(world, *prices):
    """Each price at each of the times."""
    world.send(PAIR[0], [(BTC, price, timestamp) for price in prices for timestamp in TIMES])


async def check(world, *, in_window=True):
    """All answers about these updates, from the window and from bars: the later received is the later one."""
    newest = max(world.of(PAIR), key=lambda sent: (sent.timestamp, sent.order))
    assert (await world.queries.latest(BTC, (PAIR[0],))).price == newest.price
    whole = summary_of(world.of(PAIR))
    assert whole.says(world.book.bars.bar(PAIR, Span(NOON, NOON + 60 * SECOND)))
    if in_window:
        await until(lambda: world.book.flushes.drained)
        span = Span(NOON + 20_100, NOON + 20_900)
        ((edge,),) = (await world.window.edges([PAIR], [span])).values()
        assert summary_of(world.of(PAIR, span)).says(edge.bar)


@pytest.mark.parametrize("back", [3 * SECOND, 0, 50 * SECOND])
@pytest.mark.parametrize("away", [False, True])
async def test_a_boot_whose_clock_is_behind_comes_after_those_before_it(autojump_clock, back, away):
    """Also its updates from before the bars of the others were read, for a moment or for long."""
    world = World()
    await trio.sleep(20.4)
    for number in range(2, 5):
        world.window.away = away
        send(world, number)
        async with world.running():
            await trio.sleep(1.7)
            send(world, number + 0.1)
            await trio.sleep(0.1)
            world.window.away = False
            await until(lambda world=world: world.flusher.up and world.book.flushes.drained)
            await check(world)
            send(world, number + 0.2, number + 0.3)
            await check(world)
            world.check_ledgers()
        world.clock.offset -= back
        world = world.successor(f"boot{number}")
    world.clock.offset = 0
    async with world.running():
        await trio.sleep(70)
        await check(world, in_window=False)
        world.check_rows(world.now - 3_000)


async def test_updates_that_the_window_has_keep_their_sequences(autojump_clock):
    """Another boot was there meanwhile, with a clock that is ahead: those that come from now on are later."""
    world = World()
    await trio.sleep(20.4)
    async with world.running():
        send(world, 1.0)
        await until(lambda: world.flusher.up and world.book.flushes.drained)
        before = dict(world.window.members[PAIR])
        first = max(sequence for sequence, _ in before) + 10**9
        world.window.stored_bars[PAIR][NOON + 20_000, "other"] = Bar.of([NOON + 20_300], [7.0], first)
        world.note(PAIR[0], [(BTC, 7.0, NOON + 20_300)])
        lose_lock(world.store)
        own = Span(NOON + 20_000, NOON + 21_000)
        await until(lambda: (NOON + 20_000, "other") in world.book.bars.fields(PAIR, own))
        send(world, 2.0)
        await until(lambda: world.book.flushes.drained)
        members = world.window.members[PAIR]
        assert members.items() >= before.items()
        assert min(sequence for sequence, _ in members.keys() - before.keys()) > first
        await world.queries.latest(BTC, (PAIR[0],))
        assert summary_of(world.of(PAIR)).says(world.book.bars.bar(PAIR, Span(NOON, NOON + 60 * SECOND)))


async def test_sequences_that_no_boot_can_have_are_not_followed(autojump_clock):
    """Members have room for so many digits. Such a bar is not ours, or was damaged."""
    world = World()
    world.window.stored_bars[PAIR] = {(NOON, "other"): Bar.of([NOON], [7.0], MOST)}
    async with world.running():
        await until(lambda: world.standing.history_known)
        send(world, 1.0)
        await until(lambda: world.book.flushes.drained)
        assert all(sequence < (NOON + 60_000) * PER_MS for sequence, _ in world.window.members[PAIR])


def test_a_sequence_follows_from_boot_chunk_and_place():
    sequences = Sequences()
    sequences.begin(NOON)
    first = NOON * PER_MS
    assert [sequences.take("a", number, 3) for number in range(3)] == [
        first,
        first + PLACES,
        first + 2 * PLACES,
    ]
    assert sequences.take("b", 0, 3) == first, "each exchange has its own"
    again = Sequences()
    again.begin(NOON)
    assert again.take("a", 2, 3) == first + 2 * PLACES


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3 * PLACES)), max_size=30), st.booleans())
def test_no_two_updates_of_an_exchange_have_the_same(chunks, behind):
    """Also after chunks that are too large, and behind the sequences of other boots."""
    sequences, numbers = Sequences(), dict.fromkeys("ab", 0)
    sequences.begin(1)
    last = dict.fromkeys("ab", 0)
    for place, (exchange, count) in enumerate(chunks):
        if behind and place == 5:
            sequences.follow("a", last["a"] + 10 * PLACES + 7, renumber=False)
        first = sequences.take(exchange, numbers[exchange], count)
        assert first >= last[exchange]
        last[exchange] = first + count
        numbers[exchange] += 1


def test_numbers_go_on_behind_those_of_others():
    sequences = Sequences()
    sequences.begin(1)
    assert sequences.follow("a", PER_MS - 1, renumber=True) == 0
    assert sequences.take("a", 0, 10) == PER_MS
    assert sequences.follow("a", PER_MS + 5, renumber=True) == 5
    assert sequences.take("a", 1, 10) == PER_MS + PLACES + 5
    assert sequences.follow("a", PER_MS + 5, renumber=True) == 0
    assert sequences.follow("a", others := PER_MS + 9 * PLACES, renumber=False) == 0
    assert [sequences.take("a", number, 10) for number in range(2, 5)] == [others, others + 10, others + 20]
    assert sequences.take("a", 20, 10) == PER_MS + 20 * PLACES + 5
    assert sequences.take("b", 0, 1) == PER_MS


def members_of(batches):
    """The members that a boot makes of batches: prices by timestamp, sequence and symbol."""
    book, window = World().book, MemoryWindow(boot="boot1")
    book.begin(NOON)
    for batch in batches:
        book.apply(batch)
    flush = book.flushes.next(window, NOON).encoded.flush
    return {
        (run.exchange, run.symbol, timestamp, sequence): price
        for run in flush.updates
        for timestamp, sequence, price in zip(
            run.columns.timestamps, run.sequences, run.columns.prices, strict=True
        )
    }


async def test_the_same_chunks_taken_in_again_make_the_same_members(autojump_clock):
    """A replay takes in some of a boot's chunks as that boot. Other exchanges have no influence."""

    def chunk(exchange, number):
        updates = [(symbol, 1.0 + number, NOON + number) for symbol in (BTC, "ETHUSDT", BTC)]
        return batch_of(exchange, updates, number=number)

    ours = [chunk("exchange1", number) for number in range(6)]
    others = [chunk("exchange2", number) for number in range(9)]
    whole = members_of([*others[:4], *ours[:3], *others[4:], *ours[3:]])
    again = members_of(ours[3:5])
    assert len(again) == 6
    assert again.items() <= whole.items()


async def test_whoever_waits_wakes_up_when_there_are_more(autojump_clock):
    sequences = Arrivals()
    sequences.grow_to(1_000)
    assert await sequences.wait_beyond(999) == 1_000
    with trio.move_on_after(1) as scope:
        await sequences.wait_beyond(1_000)
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sequences.wait_beyond, 1_000)
        await trio.testing.wait_all_tasks_blocked()
        sequences.grow_to(1_001)
