from __future__ import annotations

import random

import pytest
import trio
from builders import EXCHANGES, NOON, SEEDS, SYMBOLS, World, batch_of, run_virtual, until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from marketflow.app.share.flushes import FLUSH_BARS
from marketflow.app.share.ledger import OVERFLOW, SHUTDOWN
from marketflow.domain.bars import Bar
from marketflow.domain.periods import HOUR, MINUTE, Span

FAULTS = ["away", "back", "forgetful", "mindful", "empty"]


def random_updates(rng, now, count, *, oldest=0):
    return [
        (rng.choice(SYMBOLS), round(rng.uniform(1, 100), 2), now - rng.randint(0, oldest) if oldest else now)
        for _ in range(count)
    ]


def inflict(world, fault):
    match fault:
        case "away":
            world.window.away = True
        case "back":
            world.window.away = False
        case "forgetful":
            world.window.forgetful = True
        case "mindful":
            world.window.forgetful = False
        case "empty":
            world.window.empty()


steps = st.lists(
    st.one_of(
        st.sampled_from(FAULTS),
        st.integers(1, 30),  # updates
        st.sampled_from([0.01, 0.06, 0.3, 1.1, 7.0]),  # seconds
    ),
    min_size=1,
    max_size=40,
)


@given(steps, SEEDS)
@settings(max_examples=75, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_is_lost_or_doubled_whatever_happens_to_the_window(steps, seed):
    """The ledgers add up after every step; within 2 s after the last fault the window is complete."""

    async def main():
        rng, world = random.Random(seed), World()
        async with world.running(aggregating=False):
            for step in steps:
                if isinstance(step, str):
                    inflict(world, step)
                elif isinstance(step, int):
                    updates = random_updates(rng, world.now, step, oldest=rng.choice([0, 3_000, 90_000]))
                    world.send(rng.choice(EXCHANGES), updates, rejected=rng.randint(0, 3))
                else:
                    await trio.sleep(step)
                world.check_ledgers()
            world.window.away = world.window.forgetful = False
            await trio.sleep(2)
            assert world.flusher.up
            assert world.book.flushes.drained
            world.check_ledgers()
            world.check_window()
            assert not any(ledger.dropped for ledger in world.book.ledgers.values())

    run_virtual(main)


@given(steps, SEEDS, st.integers(1, 60))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_overflow_takes_is_counted_to_the_update(steps, seed, limit):
    """Memory is bounded by the limit and one batch; the window lacks exactly the dropped updates."""

    async def main():
        rng, world = random.Random(seed), World(limit=limit)
        async with world.running(aggregating=False) as nursery:
            for step in steps:
                if isinstance(step, str):
                    inflict(world, step)
                elif isinstance(step, int):
                    exchange = rng.choice(EXCHANGES)
                    updates = random_updates(rng, world.now, step)
                    world.note(exchange, updates)
                    nursery.start_soon(world.book.enter, batch_of(exchange, updates))
                    await trio.testing.wait_all_tasks_blocked()
                else:
                    await trio.sleep(min(step, 1.1))
                for ledger in world.book.ledgers.values():
                    assert ledger.received == ledger.accepted
                    lost = ledger.expired + ledger.dropped.total()
                    assert ledger.accepted == ledger.cached + lost + ledger.pending
                    assert ledger.pending <= max(limit, 30) + in_flight(world)
            world.window.away = world.window.forgetful = False
            await trio.sleep(2)
            world.check_ledgers()
            assert world.book.flushes.drained
            ever = Span(0, 10**15)
            held, sent = world.window_prices(ever), world.sent_prices(ever)
            assert all(set(prices) <= set(sent[pair]) for pair, prices in held.items())
            for exchange, ledger in world.book.ledgers.items():
                count = sum(len(prices) for pair, prices in held.items() if pair[0] == exchange)
                assert count == ledger.accepted - ledger.dropped[OVERFLOW]
                assert not ledger.expired
            world.check_stored_bars()

    run_virtual(main)


def in_flight(world):
    return sum(sum(flush.counts.values()) for flush in world.book.flushes.in_flight)


async def test_a_window_that_hangs_is_not_confirmed(autojump_clock):
    """A question makes an idle flusher write: only the answer to that write counts."""
    world = World()
    async with world.running(aggregating=False):
        await until(lambda: world.flusher.up)
        await trio.sleep(0.4)
        assert await world.standing.can_answer_from_redis()
        await trio.sleep(0.2)
        world.window.hung = True
        assert not await world.standing.can_answer_from_redis()
        await until(lambda: not world.flusher.up)  # it may still wait, for as long as the question
        world.window.hung = False
        await until(lambda: world.flusher.up)
        assert await world.standing.can_answer_from_redis()


# ---- the window made whole ----


async def test_an_emptied_window_is_whole_again_within_two_seconds(autojump_clock):
    """This holds for an idle one too: only the marker shows that it was emptied."""
    world = World()
    async with world.running(aggregating=False):
        for price in range(1, 60):
            world.send_one(price)
            await trio.sleep(1)
        world.window.empty()
        await trio.sleep(2)
        world.check_window()
        assert world.flusher.up


async def test_a_window_that_came_back_older_is_made_whole(autojump_clock):
    """A store restarted from a snapshot has a marker of ours, but not the later updates."""
    world = World()
    async with world.running(aggregating=False):
        world.send_one(1.0)
        await trio.sleep(1)
        snapshot = world.window.snapshot()
        for price in range(2, 20):
            world.send_one(price)
            await trio.sleep(1)
        world.window.away = True
        await trio.sleep(1)
        world.window.restore(snapshot)
        world.window.away = False
        await trio.sleep(2)
        world.check_window()


async def test_emptied_while_the_answer_was_lost(autojump_clock):
    """The write that found no marker was never answered; the next one finds that write's marker."""
    world = World()
    async with world.running(aggregating=False):
        world.send_one(1.0)
        await trio.sleep(1)
        world.window.empty()
        world.window.forgetful = True
        await trio.sleep(1)
        world.window.forgetful = False
        await trio.sleep(2)
        world.check_window()


async def test_emptied_again_while_it_is_made_whole(autojump_clock):
    world = World()
    async with world.running(aggregating=False) as nursery:
        for price in range(1, 40):
            world.send_one(price)
            await trio.sleep(0.5)
        world.window.write_seconds = 0.02
        world.window.empty()
        await until(lambda: not world.flusher.up)
        await trio.sleep(0.3)
        assert not world.flusher.up  # 39 flushes of 20 ms are under way
        world.window.empty()
        await trio.sleep(0.1)
        assert nursery.child_tasks
        await trio.sleep(3)
        world.check_window()


async def test_replay_is_bounded_by_its_memory(autojump_clock):
    """If the store is emptied, the oldest updates beyond that memory are missing, but no bars."""
    world = World(replay_memory=20 * 75)
    async with world.running(aggregating=False):
        for price in range(1, 51):
            world.send_one(price)
            await trio.sleep(0.2)
        assert world.book.flushes.replay.size <= 20 * 75
        world.window.empty()
        await trio.sleep(2)
        held = world.window.members["exchange1", "BTCUSDT"].values()
        assert sorted(update.price for update in held) == list(range(31, 51))
        world.check_stored_bars()


async def test_a_flush_in_flight_is_repeated_as_it_was(autojump_clock):
    """It does not change with new attempts and new updates: the store may have executed it already."""
    world = World()
    async with world.running(aggregating=False):
        await until(lambda: world.flusher.up)
        world.window.away = True
        world.send_one(1.0)
        await until(lambda: world.book.flushes.in_flight)
        encoded = world.book.flushes.in_flight[0].encoded
        before = len(world.window.attempts)
        for price in range(2, 10):
            world.send_one(price)
            await trio.sleep(0.3)
        world.window.away = False
        await until(lambda: world.book.flushes.drained)
        tries = [each for each in world.window.attempts[before:] if each.flush.updates]
        assert tries[0] is encoded
        world.check_window()


async def test_acknowledgements_lost_double_nothing(autojump_clock):
    world = World()
    async with world.running(aggregating=False):
        await until(lambda: world.flusher.up)
        world.window.forgetful = True
        for price in range(1, 10):
            world.send_one(price)
            await trio.sleep(0.5)
            world.check_ledgers()
        assert world.book.ledgers["exchange1"].cached == 0
        world.window.forgetful = False
        await until(lambda: world.book.flushes.drained and world.flusher.up)
        assert world.book.ledgers["exchange1"].cached == 9
        world.check_window()


async def test_updates_too_old_for_the_window_are_expired_and_in_the_bars(autojump_clock):
    world = World()
    async with world.running(aggregating=False):
        world.send("exchange1", [("BTCUSDT", 1.0, world.now - 60_001), ("BTCUSDT", 2.0, world.now - 59_000)])
        await until(lambda: world.book.flushes.drained)
        ledger = world.book.ledgers["exchange1"]
        assert (ledger.cached, ledger.expired) == (1, 1)
        world.check_ledgers()
        world.check_stored_bars()


async def test_an_outage_of_an_hour_and_a_half_keeps_memory_bounded(autojump_clock):
    """Updates that leave the window expire; the bars of an hour are kept, and written afterwards."""
    world = World(flush_interval=5.0)
    async with world.running(slowly=True):
        await until(lambda: world.flusher.up)
        world.window.away = True
        for minute in range(90):
            world.send_one(1.0 + minute)
            await trio.sleep(60)
            assert world.book.ledgers["exchange1"].pending <= 3
            world.check_ledgers()
        assert len(world.book.bars.fields(("exchange1", "BTCUSDT"), Span(0, 10**15))) <= 62
        world.window.away = False
        await until(lambda: world.book.flushes.drained and world.flusher.up)
        world.check_window()
        world.check_ledgers()


# ---- a window that answers, and refuses ----


@pytest.mark.parametrize("refused", ["updates", "bars", "removals", "reads"])
async def test_a_window_that_refuses_some_of_it_is_away_until_it_takes_that(refused, autojump_clock):
    """It accepts the marker all the time: away is logged once, and memory stays bounded."""
    world = World(limit=20)
    async with world.running(aggregating=False):
        await until(lambda: world.flusher.up)
        world.send_one(1.0)
        await until(lambda: world.book.flushes.drained)
        world.window.refused = {refused}
        if refused == "reads":
            world.window.shelf.marker = None
        with capture_logs() as logs:
            for price in range(2, 60):
                world.send_one(price)
                await trio.sleep(0.2)
                world.check_ledgers()
                assert price < 8 or not world.redis.up
            assert [each["event"] for each in logs] == ["store away"]
        assert world.book.ledgers["exchange1"].pending <= 20 + in_flight(world)
        world.window.refused = set()
        await until(lambda: world.flusher.up, seconds=1)
        await until(lambda: world.book.flushes.drained, seconds=1)
        world.check_stored_bars()
        world.check_ledgers()


async def test_what_a_key_of_another_type_took_the_place_of_is_written_again(autojump_clock):
    world = World()
    async with world.running(aggregating=False):
        for price in range(1, 10):
            world.send_one(price)
            await trio.sleep(0.2)
        world.window.members.clear()
        world.window.refused = {"updates"}
        world.send_one(10.0)
        await until(lambda: not world.redis.up)
        await trio.sleep(1)
        world.window.refused = set()
        await until(lambda: world.flusher.up)
        world.check_window()


# ---- overload ----


async def test_full_buffers_push_back_while_the_window_answers(autojump_clock):
    """Nothing is dropped; the exchange that floods waits, the other one does not."""
    world = World(limit=10)
    world.window.write_seconds = 0.5
    entered = []

    async def flood():
        for price in range(1, 41):
            updates = [("BTCUSDT", price, world.now)] * 5
            world.note("exchange1", updates)
            await world.book.enter(batch_of("exchange1", updates))
            entered.append(trio.current_time())
            assert world.book.ledgers["exchange1"].pending <= 10

    async with world.running(aggregating=False) as nursery:
        await until(lambda: world.flusher.up)
        nursery.start_soon(flood)
        await trio.sleep(1)
        assert len(entered) < 10
        with trio.fail_after(0.001):
            await world.book.enter(batch_of("exchange2", [("BTCUSDT", 1.0, world.now)]))
        await until(lambda: len(entered) == 40, seconds=200)
        await until(lambda: world.book.flushes.drained)
        ledger = world.book.ledgers["exchange1"]
        assert (ledger.accepted, ledger.cached, ledger.dropped.total()) == (200, 200, 0)


async def test_writes_that_were_acknowledged_are_timed(autojump_clock):
    """This includes writes of an idle window; a failed write gives no time."""
    world = World()
    world.window.write_seconds = 0.02
    async with world.running(aggregating=False):
        await trio.sleep(10)
        idle = world.flusher.write_seconds.read()
        assert idle.count == len(world.window.attempts) >= 15
        assert idle.sum == pytest.approx(0.02 * idle.count)
        world.window.away = True
        await trio.sleep(10)
        assert world.flusher.write_seconds.read() == idle
        world.window.away, world.window.write_seconds = False, 0.3
        world.send_one(1.0)
        await until(lambda: world.book.flushes.drained)
        slow = world.flusher.write_seconds.read()
        assert dict(slow.buckets)[0.25] == idle.count < slow.count


async def test_whoever_waits_goes_on_when_the_window_goes_away(autojump_clock):
    """The oldest are then dropped, and when it is back the buffers push back again."""
    world = World(limit=10)
    async with world.running(aggregating=False) as nursery:
        await until(lambda: world.flusher.up)
        world.window.write_seconds = 3.0
        for _ in range(3):
            nursery.start_soon(world.book.enter, batch_of("exchange1", [("BTCUSDT", 1.0, world.now)] * 8))
        await trio.sleep(0.1)
        ledger = world.book.ledgers["exchange1"]
        assert ledger.accepted == 8
        world.window.away = True
        await trio.sleep(4)
        assert ledger.accepted == 24
        assert ledger.dropped == {OVERFLOW: 14}
        world.window.away = False
        world.window.write_seconds = 0.0
        await until(lambda: world.book.flushes.drained and world.flusher.up)
        assert ledger.cached == 10
        world.window.write_seconds = 3.0
        for _ in range(2):
            nursery.start_soon(world.book.enter, batch_of("exchange1", [("BTCUSDT", 1.0, world.now)] * 8))
        await trio.sleep(0.1)
        assert ledger.accepted == 32


async def test_a_batch_greater_than_the_buffer_enters_when_nothing_is_pending(autojump_clock):
    """Otherwise it would wait for ever."""
    world = World(limit=3)
    async with world.running(aggregating=False):
        await until(lambda: world.flusher.up)
        updates = [("BTCUSDT", 1.0, world.now)] * 10
        with trio.fail_after(5):
            await world.book.enter(batch_of("exchange1", updates))
            await world.book.enter(batch_of("exchange1", updates))
        await until(lambda: world.book.flushes.drained)
        assert world.book.ledgers["exchange1"].cached == 20


async def test_a_flood_does_not_keep_the_flusher_from_its_other_work(autojump_clock):
    """If batches arrive faster than a write takes, the window is still trimmed and restored."""
    world = World()
    world.window.write_seconds = 0.02

    async def flood():
        while True:
            world.send_one(1.0)
            await trio.sleep(0.01)

    async with world.running(aggregating=False) as nursery:
        await until(lambda: world.flusher.up)
        nursery.start_soon(flood)
        await trio.sleep(80)
        held = world.window.members["exchange1", "BTCUSDT"].values()
        assert min(update.timestamp for update in held) >= world.now - 65_000
        world.window.write_seconds = 0.0001
        await trio.sleep(1)
        world.window.empty()
        await trio.sleep(2.5)
        span = Span(world.now - 55_000, world.now - 200)
        assert world.window_prices(span) == world.sent_prices(span)


# ---- the history ----


async def test_bars_of_earlier_boots_are_adopted(autojump_clock):
    """This holds even if the window was away at the start; they survive a window that is emptied later."""
    first = World()
    async with first.running(aggregating=False):
        for price in range(1, 10):
            first.send_one(price)
            await trio.sleep(1)
    second = first.successor("boot2")
    second.window.away = True
    async with second.running(aggregating=False):
        second.send_one(100.0)
        await trio.sleep(3)
        assert not second.standing.history_known
        second.window.away = False
        await until(lambda: second.flusher.up)
        assert second.standing.history_known
        second.window.empty()
        await trio.sleep(2)
        second.check_stored_bars()


async def test_a_history_asked_for_while_it_is_read_is_read_again(autojump_clock):
    """Otherwise data that another service wrote in between would be missing."""
    world = World()
    world.window.read_seconds = 1.0
    async with world.running(aggregating=False):
        await trio.sleep(0.5)
        pair = ("exchange1", "BTCUSDT")
        second = world.now - world.now % 1_000
        world.window.stored_bars.setdefault(pair, {})[second, "other"] = Bar.of([second], [7.0])
        await world.lease_database()
        span = Span(second, second + 1_000)
        await until(lambda: (second, "other") in world.book.bars.fields(pair, span))


# ---- the end ----


async def test_it_ends_when_the_book_has_ended_and_everything_is_written(autojump_clock):
    world = World(flush_interval=5.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.flusher.run)
        await until(lambda: world.flusher.up)
        world.send_one(1.0)
        world.book.end()
        with trio.fail_after(0.5):
            await world.flusher.ended.wait()
    assert world.book.flushes.drained
    assert world.book.ledgers["exchange1"].cached == 1
    world.check_window()


async def test_a_stop_takes_as_many_flushes_as_it_needs_and_no_pause_between_them(autojump_clock):
    """With a long interval there would be no time for pauses."""
    world = World(flush_interval=10.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.flusher.run)
        await until(lambda: world.flusher.up)
        for second in range(3 * FLUSH_BARS):
            world.book.bars.add(
                ("exchange1", "BTCUSDT"), NOON - second * 1_000, Bar.of([NOON - second * 1_000], [1.0])
            )
        world.book.end()
        with trio.fail_after(0.5):
            await world.flusher.ended.wait()
    assert world.book.flushes.drained


async def test_what_was_lost_right_before_a_stop_is_written_again(autojump_clock):
    """Nothing is pending, so that only a look can show it."""
    world = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.flusher.run)
        await until(lambda: world.flusher.up)
        world.send_one(1.0)
        await until(lambda: world.book.flushes.drained)
        world.window.empty()
        world.book.end()
        with trio.fail_after(2):
            await world.flusher.ended.wait()
    world.check_window()


async def test_at_a_stop_with_the_window_away_what_is_pending_is_dropped_and_counted(autojump_clock):
    world = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.flusher.run)
        await until(lambda: world.flusher.up)
        world.window.away = True
        for _ in range(3):
            world.send_one(1.0)
            await trio.sleep(0.5)
        assert world.book.flushes.in_flight
        world.book.end()
        with trio.fail_after(2):
            await world.flusher.ended.wait()
    ledger = world.book.ledgers["exchange1"]
    assert ledger.dropped == {SHUTDOWN: 3}
    assert ledger.pending == 0
    world.check_ledgers()


async def test_a_window_that_comes_back_at_the_last_moment_gets_everything(autojump_clock):
    """It is tried once more after the book has ended."""
    world = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.flusher.run)
        await until(lambda: world.flusher.up)
        world.window.away = True
        world.send_one(1.0)
        await trio.sleep(1)
        world.book.end()
        world.window.away = False
    assert world.book.ledgers["exchange1"].cached == 1
    world.check_window()


# ---- questions ----


async def test_whoever_asks_does_not_wait_for_the_interval(autojump_clock):
    world = World(flush_interval=5.0)
    async with world.running(aggregating=False):
        await until(lambda: world.flusher.up)
        await trio.sleep(1)
        world.send_one(1.0)
        with trio.fail_after(0.1):
            assert await world.standing.flushed()
        assert world.book.ledgers["exchange1"].cached == 1


async def test_a_window_that_hangs_costs_a_question_the_patience(autojump_clock):
    world = World()
    async with world.running(aggregating=False):
        await until(lambda: world.flusher.up)
        world.window.write_seconds = 30.0
        world.send_one(1.0)
        await trio.sleep(0.1)
        began = trio.current_time()
        assert not await world.standing.flushed()
        assert trio.current_time() - began == pytest.approx(1.0)


async def test_an_away_window_costs_a_question_nothing(autojump_clock):
    world = World()
    async with world.running(aggregating=False):
        world.window.away = True
        world.send_one(1.0)
        await trio.sleep(1)
        began = trio.current_time()
        assert not await world.standing.flushed()
        assert trio.current_time() == began


async def test_the_window_is_trimmed_within_its_margin(autojump_clock):
    """It never removes a question's oldest edge, and is never more than 5 s late; bars go after an hour."""
    world = World()
    async with world.running(aggregating=False):
        for _ in range(100):
            world.send_one(1.0)
            await trio.sleep(1)
            held = world.window.members["exchange1", "BTCUSDT"].values()
            oldest = min(update.timestamp for update in held)
            assert oldest >= world.now - 65_000
            if world.now - NOON > 60_000:
                assert oldest <= world.now - 60_000
        assert world.window.stored_bars["exchange1", "BTCUSDT"]


async def test_bars_are_removed_from_the_window_after_an_hour(autojump_clock):
    world = World(flush_interval=30.0)
    async with world.running(slowly=True):
        pair = ("exchange1", "BTCUSDT")
        for _ in range(75):
            world.send_one(1.0)
            await trio.sleep(60)
        world.check_stored_bars()
        assert min(second for second, _ in world.window.stored_bars[pair]) >= world.now - HOUR - 2 * MINUTE
        await trio.sleep(2 * HOUR / 1_000)
        assert not world.window.stored_bars[pair]
        assert not world.window.members[pair]
