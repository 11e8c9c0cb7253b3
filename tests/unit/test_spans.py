"""Bars of any span: with each filling of the ports an answer is exact for the span that it names."""

from __future__ import annotations

import math
import random

import pytest
import trio
from builders import EXCHANGES, NOON, SEEDS, SYMBOLS, World, run_virtual, summary_of, until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marketflow.app.answers import MEMORY, POSTGRES, REDIS, NothingCanAnswer
from marketflow.domain.bars import Bar
from marketflow.domain.periods import DAY, HOUR, MINUTE, SECOND, Span, ceil_to, floor_to

PAIRS = [(exchange, symbol) for exchange in EXCHANGES for symbol in SYMBOLS]
PAIR = PAIRS[0]


WANTED = {
    "highest": ("max", max),
    "lowest": ("min", min),
    "average": ("average", lambda prices: pytest.approx(math.fsum(prices) / len(prices), rel=1e-9)),
}


def check(world, covered, kind=None):
    """Check that the bars are those of all accepted updates in the span of the answer.

    If one statistic was requested, only that one and the count are checked.
    """
    for pair in PAIRS:
        updates = world.of(pair, covered.span)
        assert (pair in covered.bars) == bool(updates), (pair, covered, updates)
        if not updates:
            continue
        bar = covered.bars[pair]
        if kind is not None:
            name, of = WANTED[kind]
            wanted = len(updates), of([update.price for update in updates])
            assert (bar.count, getattr(bar, name)) == wanted, (kind, pair, bar)
        else:
            assert summary_of(updates).says(bar), (bar, summary_of(updates))


async def ask(world, period, *, source, start=None, end=None):
    """Ask for a period that ends now; the span must be exactly that one unless the test says otherwise."""
    await world.answerable()
    now = world.now
    covered = await world.spans.of(PAIRS).over(Span(now - period, now), now)
    assert covered.source == source
    assert covered.span == Span(now - period if start is None else start, now if end is None else end)
    check(world, covered)
    return covered


async def ask_without_redis(world, period, *, source=MEMORY, start, end):
    """Ask while Redis is away: what has no other knowledge must not answer."""
    if world.knows_nothing:
        with pytest.raises(NothingCanAnswer):
            await world.spans.of(PAIRS).over(Span(world.now - period, world.now), world.now)
    else:
        await ask(world, period, source=source, start=start, end=end)


async def play(world, seconds, every=0.37, *, oldest=1_500, seed=1):
    rng, end = random.Random(seed), trio.current_time() + seconds
    while trio.current_time() < end:
        for exchange in EXCHANGES:
            updates = [
                (
                    rng.choice(SYMBOLS),
                    rng.uniform(1, 100),
                    world.now - rng.choice([0, rng.randint(0, oldest)]),
                )
                for _ in range(2)
            ]
            world.send(exchange, updates)
        await trio.sleep(every)


# ---- up to the window's length ----


async def ask_and_check(world, rng, seconds):
    """Ask for a statistic, or for all; the answer is exact, or in whole seconds and says so."""
    if world.knows_nothing:
        with pytest.raises(NothingCanAnswer):
            await world.spans.of(PAIRS).over(Span(world.now - seconds * SECOND, world.now), world.now)
        return
    await world.answerable()
    period, now, up = seconds * SECOND, world.now, world.flusher.up
    kind = rng.choice([None, "average", "highest", "lowest"])
    covered = await world.spans.of(PAIRS).over(Span(now - period, now), now, kind)
    check(world, covered, kind)
    whole = floor_to(now, SECOND)
    exact = covered.span == Span(now - period, now) and covered.source == REDIS
    if not up and not world.flusher.up:  # it may notice that Redis was emptied while this is answered
        assert covered.source == MEMORY or seconds == 3_600
    elif up and seconds <= 60 and world.flusher.up:
        assert exact or covered.span == Span(whole - period, whole)
    assert exact or covered.span.end == whole
    assert covered.span.start >= now - period - MINUTE


@given(
    st.lists(
        st.one_of(
            st.sampled_from(["away", "back", "empty"]),
            st.integers(1, 6),  # updates
            st.sampled_from([0.003, 0.4, 1.234, 9.5]),  # seconds
            st.tuples(
                st.sampled_from([1, 2, 3, 7, 30, 59, 60, 61, 90, 120, 3_600])
            ),  # ask for so many seconds
        ),
        max_size=30,
    ),
    SEEDS,
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_answer_is_exact_for_the_span_that_it_names(filling, steps, seed):
    """This holds with stores away or emptied, and for updates just before the question."""

    async def main():
        rng, world = random.Random(seed), World(flush_interval=0.2, filling=filling)
        await trio.sleep(rng.random())
        async with world.running():
            await trio.sleep(1)
            for step in steps:
                match step:
                    case "away" | "back":
                        world.window.away = step == "away"
                    case "empty":
                        world.window.empty()
                    case int():
                        for _ in range(step):
                            world.send_one(
                                rng.uniform(1, 9),
                                age=rng.choice([0, 0, 1, 1_000, 40_000]),
                                exchange=rng.choice(EXCHANGES),
                                symbol=rng.choice(SYMBOLS),
                            )
                    case float():
                        await trio.sleep(step)
                    case (seconds,):
                        await ask_and_check(world, rng, seconds)

    run_virtual(main)


@pytest.mark.parametrize("period", [1_000, 2_000, 3_000, 17_000, 60_000])
async def test_exact_to_the_millisecond_while_the_window_answers(autojump_clock, filling, period):
    """At any part of a second, with updates just before the question."""
    world = World(filling=filling)
    async with world.running(aggregating=False) as nursery:
        nursery.start_soon(play, world, 75)
        await trio.sleep(65)
        for _ in range(25):
            await trio.sleep(0.1371)
            world.send_one(1000.0)
            await ask(world, period, source=REDIS)


@pytest.mark.parametrize("kind", ["highest", "lowest"])
async def test_an_edge_that_cannot_hold_the_extreme_is_counted_and_not_read(autojump_clock, filling, kind):
    """With millions of updates a minute, an edge has tens of thousands."""
    world = World(filling=filling)
    beyond, within = {"highest": (9.0, 1.0), "lowest": (1.0, 9.0)}[kind]
    read = world.window.prices_of
    async with world.running(aggregating=False):
        await trio.sleep(10.2)
        for price, age in ((within, 2_150), (within, 2_000), (beyond, 1_000)):
            world.send_one(price, age=age)
        await trio.sleep(0.9)
        for period in (3_000, 60_000):
            covered = await world.spans.of(PAIRS).over(Span(world.now - period, world.now), world.now, kind)
            assert (covered.span, covered.source) == (Span(world.now - period, world.now), REDIS)
            check(world, covered, kind)
        assert covered.bars[PAIR].count == 3
        assert not read
        # The edge's second has a higher price: only raw updates show whether the edge itself has it.
        for age in (3_050, 2_950):
            world.send_one(beyond * 2 if kind == "highest" else beyond / 2, age=age)
            await trio.sleep(0.1)
            covered = await world.spans.of(PAIRS).over(Span(world.now - 3_000, world.now), world.now, kind)
            check(world, covered, kind)
        assert read == [PAIR] * 2


@pytest.mark.parametrize("kind", ["highest", "lowest", "average"])
@pytest.mark.parametrize("edges", [("oldest",), ("newest",), ("oldest", "newest")], ids="+".join)
async def test_edges_are_counted_or_their_prices_read_but_never_whole_updates(
    autojump_clock, filling, kind, edges
):
    """With a partial second at one end or both. Both ways give the right answer, so calls are checked."""
    world = World(filling=filling)
    period = 5_000 if "oldest" in edges else 5_250
    async with world.running(aggregating=False):
        await trio.sleep(20.25)
        now = world.now
        # Each edge's second has updates before and after the edge begins or ends.
        ages = [4_000, 3_000, 2_000, 1_001]
        ages += [5_100, 4_900] if "oldest" in edges else [5_200, 5_250]
        ages += [30, -20] if "newest" in edges else [30]
        for pair in PAIRS[:2]:
            for age in ages:
                middle = 1_000 < age <= 4_000
                price = (
                    {"highest": 9.0, "lowest": 1.0, "average": 4.0}[kind] if middle else 5.0 + age / 10_000
                )
                world.send(pair[0], [(pair[1], price, now - age)])
        await trio.sleep(0.2)
        covered = await world.spans.of(PAIRS).over(Span(now - period, now), now, kind)
        assert (covered.span, covered.source) == (Span(now - period, now), REDIS)
        check(world, covered, kind)
        assert world.window.edges_of == []
        assert world.window.prices_of == ([] if kind != "average" else [p for p in PAIRS[:2] for _ in edges])
        # An extreme may be in an edge's second: then only that pair's prices are read.
        beyond = {"highest": 20.0, "lowest": 0.5, "average": 4.0}[kind]
        age = 4_950 if "oldest" in edges else 20
        world.send(PAIR[0], [(PAIR[1], beyond, now - age)])
        await trio.sleep(0.2)
        world.window.prices_of.clear()
        covered = await world.spans.of(PAIRS).over(Span(now - period, now), now, kind)
        check(world, covered, kind)
        assert world.window.edges_of == []
        whose = PAIRS[:2] if kind == "average" else [PAIR]
        assert world.window.prices_of == [p for p in whose for _ in edges]


async def test_an_edge_that_lacks_an_update_is_not_counted(autojump_clock, filling):
    """Nor is one with more than the accepted updates: it must be read to find out which."""
    world = World(filling=filling)
    async with world.running(aggregating=False):
        await trio.sleep(10.5)
        for price, age in ((1.0, 2_000), (1.0, 1_900), (9.0, 1_000)):
            world.send_one(price, age=age)
        await trio.sleep(0.3)
        held = dict(world.window.members[PAIR])
        world.window.members[PAIR].popitem()
        del world.window.members[PAIR][min(held)]
        now = world.now
        covered = await world.spans.of(PAIRS).over(Span(now - 2_250, now), now, "highest")
        whole = floor_to(now, SECOND)
        assert covered.span == Span(floor_to(now - 2_250, SECOND), whole)
        world.window.members[PAIR] = held | {(0, "another"): next(iter(held.values()))}
        covered = await world.spans.of(PAIRS).over(Span(now - 2_250, now), now, "highest")
        assert covered.span == Span(now - 2_250, now)


async def test_the_span_is_left_closed_and_right_open(autojump_clock, filling):
    world = World(filling=filling)
    async with world.running(aggregating=False):
        await trio.sleep(20.25)
        now = world.now
        for timestamp in (now - 5_001, now - 5_000, now - 1, now):
            world.send(PAIR[0], [(PAIR[1], float(timestamp), timestamp)])
        await world.answerable()
        covered = await world.spans.of(PAIRS).over(Span(now - 5_000, now), now)
        assert (covered.span, covered.source) == (Span(now - 5_000, now), REDIS)
        assert (covered.bars[PAIR].min, covered.bars[PAIR].max) == (now - 5_000, now - 1)


async def test_what_comes_in_meanwhile_does_not_cost_the_milliseconds(autojump_clock, filling):
    """At high rates there are always updates during a question."""
    world = World(filling=filling)
    async with world.running(aggregating=False):
        await trio.sleep(10.5)
        for age in (1, 100, 2_400, 2_600):
            world.send_one(5.0, age=age)
        await world.answerable()
        now, before = world.now, list(world.sent)
        world.window.after_edges = lambda: world.send(PAIR[0], [(PAIR[1], 7.0, now - 1)])
        covered = await world.spans.of(PAIRS).over(Span(now - 3_000, now), now)
        assert (covered.span, covered.source) == (Span(now - 3_000, now), REDIS)
        assert summary_of(before).says(covered.bars[PAIR])


async def test_lost_updates_show_and_the_bars_answer_in_whole_seconds(autojump_clock, filling):
    """Updates dropped in an outage are missing for as long as the window reaches back to them."""
    world = World(limit=5, filling=filling)
    async with world.running(aggregating=False):
        await play(world, 10)
        world.window.away = True
        await play(world, 10)
        world.window.away = False
        await until(lambda: world.flusher.up)
        await trio.sleep(0.3)
        assert world.book.ledgers[PAIR[0]].dropped.total()
        now = world.now
        whole = floor_to(now, SECOND)
        await ask(world, 3_000, source=REDIS, start=whole - 3_000, end=whole)
        # The edges are before and after it, and bars have the updates that are missing between them.
        await play(world, 5)
        await ask(world, 20_000, source=REDIS)


@pytest.mark.parametrize("kind", [None, "highest", "average"])
async def test_what_comes_in_meanwhile_does_not_stand_in_for_what_was_dropped(autojump_clock, filling, kind):
    """Redis is back within the second of a dropped update, and one more is written during the question."""
    world = World(limit=4, filling=filling)
    async with world.running(aggregating=False):
        await trio.sleep(10.0)
        world.window.away = True
        await trio.sleep(0.1)
        world.send_one(100.0)
        for _ in range(4):
            world.send_one(5.0)
        assert world.book.ledgers[PAIR[0]].dropped.total() == 1
        world.window.away = False
        await until(lambda: world.flusher.up and world.book.flushes.drained)
        world.send_one(6.0, age=-30)  # A timestamp after the end, so that the second is an edge.
        await until(lambda: world.book.flushes.drained)
        now = world.now
        read = {name: getattr(world.window, name) for name in ("counts", "edges")}

        def late(name):
            async def after_one_more(*args):
                world.send_one(7.0)
                await until(lambda: world.book.flushes.drained)
                return await read[name](*args)

            return after_one_more

        for name in read:
            setattr(world.window, name, late(name))
        covered = await world.spans.of(PAIRS).over(Span(now - 3_000, now), now, kind)
        check(world, covered, kind)
        assert covered.span == Span(NOON + 7_000, NOON + 10_000)
        # After a while no dropped update can be in a span.
        await trio.sleep(70)
        world.send_one(6.0, age=-30)
        await until(lambda: world.book.flushes.drained)
        now = world.now
        covered = await world.spans.of(PAIRS).over(Span(now - 3_000, now), now, kind)
        assert covered.span == Span(now - 3_000, now)


async def test_with_the_window_away_whole_seconds_from_memory(autojump_clock, filling):
    world = World(filling=filling)
    async with world.running(aggregating=False) as nursery:
        nursery.start_soon(play, world, 100)
        await trio.sleep(70)
        world.window.away = True
        await trio.sleep(1.3)
        for period in (1_000, 5_000, 60_000, 70_000):
            whole = floor_to(world.now, SECOND)
            await ask_without_redis(world, period, start=whole - period, end=whole)


@pytest.mark.parametrize("call", ["counts", "prices", "edges"])
async def test_a_window_that_goes_away_during_the_question(autojump_clock, filling, monkeypatch, call):
    """The bars are known by then, so they answer in whole seconds."""
    world = World(filling=filling)
    async with world.running(aggregating=False):
        await play(world, 10)
        await world.answerable()
        read = getattr(world.window, call)

        async def away(*args):
            world.window.away = True
            return await read(*args)

        monkeypatch.setattr(world.window, call, away)
        whole, kind = floor_to(world.now, SECOND), None if call == "edges" else "average"
        covered = await world.spans.of(PAIRS).over(Span(world.now - 5_000, world.now), world.now, kind)
        assert world.window.away
        assert covered.span == Span(whole - 5_000, whole)
        check(world, covered, kind)


async def test_a_window_that_went_away_just_before_the_question(autojump_clock, filling):
    """The link has not noticed it yet."""
    world = World(filling=filling)
    async with world.running(aggregating=False):
        await play(world, 10)
        world.window.away = True
        if world.knows_nothing:
            with pytest.raises(NothingCanAnswer):
                await world.spans.of(PAIRS).over(Span(world.now - 5_000, world.now), world.now)
            return
        whole = floor_to(world.now, SECOND)
        covered = await world.spans.of(PAIRS).over(Span(world.now - 5_000, world.now), world.now)
        assert covered.span == Span(whole - 5_000, whole)
        check(world, covered)


# ---- longer ----


async def test_whole_seconds_as_far_as_bars_reach_and_whole_minutes_beyond(autojump_clock, filling):
    world = World(flush_interval=30.0, filling=filling)
    async with world.running(slowly=True) as nursery:
        nursery.start_soon(play, world, 3 * 3_600, 17.3)
        await trio.sleep(2.5 * 3_600 + 12.3)
        await world.answerable()
        whole = floor_to(world.now, SECOND)
        await ask(world, 10 * MINUTE, source=REDIS, start=whole - 10 * MINUTE, end=whole)
        whole = floor_to(world.now, SECOND)
        await ask(world, HOUR, source=REDIS, start=whole - HOUR, end=whole)
        for period in (HOUR + 90 * SECOND, 2 * HOUR, 30 * DAY):
            whole = floor_to(world.now, SECOND)
            await ask(world, period, source=POSTGRES, start=floor_to(whole - period, MINUTE), end=whole)
        world.window.away = True
        await trio.sleep(31)  # the outage was noticed within a flush interval
        whole = floor_to(world.now, SECOND)
        start = floor_to(whole - 2 * HOUR, MINUTE)
        await ask_without_redis(world, 2 * HOUR, source=POSTGRES, start=start, end=whole)
        await ask_without_redis(world, HOUR, start=whole - HOUR, end=whole)


async def test_with_postgres_away_as_far_as_the_bars_reach(autojump_clock, filling):
    """The answer says how far back it reaches."""
    world = World(flush_interval=30.0, filling=filling)
    async with world.running(slowly=True) as nursery:
        nursery.start_soon(play, world, 3 * 3_600, 17.3)
        await trio.sleep(2 * 3_600 + 12.3)
        world.store.away = True
        await trio.sleep(1)
        await world.answerable()
        whole, reach = floor_to(world.now, SECOND), floor_to(world.now - HOUR, MINUTE)
        await ask(world, 2 * HOUR, source=REDIS, start=reach, end=whole)


@pytest.mark.parametrize("seconds", [4, 70, 170])
async def test_bars_forgotten_during_the_question_are_not_missing(autojump_clock, filling, seconds):
    """PostgreSQL answers slowly, and bars become older than an hour meanwhile."""
    world = World(flush_interval=20.0, filling=filling)
    async with world.running(slowly=True) as nursery:
        nursery.start_soon(play, world, 2 * 3_600, 17.3)
        await trio.sleep(4_000 - 4_000 % 60 + 58)
        await world.answerable()
        read = world.store.bars

        async def bars(*args):
            world.store.bars = read
            await trio.sleep(seconds)
            world.book.bars.prune(world.now)
            await world.answerable()
            await world.bars.catch_up(PAIRS)  # as another question does
            return await read(*args)

        world.store.bars = bars
        now = world.now
        covered = await world.spans.of(PAIRS).over(Span(now - 65 * MINUTE, now), now)
        assert covered.source == POSTGRES
        check(world, covered)


async def test_nothing_is_claimed_of_rows_that_were_deleted(autojump_clock, filling):
    world = World(flush_interval=30.0, retention=2 * HOUR, filling=filling)
    async with world.running(slowly=True) as nursery:
        nursery.start_soon(play, world, 6 * 3_600, 37.3)
        await trio.sleep(5 * 3_600)
        await world.answerable()
        whole = floor_to(world.now, SECOND)
        start = ceil_to(world.now - 2 * HOUR, MINUTE)
        await ask(world, 4 * HOUR, source=POSTGRES, start=start, end=whole)


# ---- before the history is known ----


async def test_before_the_window_has_answered_only_this_boot_is_known(autojump_clock, filling):
    first = World(filling=filling)
    async with first.running():
        await play(first, 100)
        await trio.sleep(1)
    world = first.successor("boot2")
    world.window.away = True
    async with world.running():
        await trio.sleep(0.5)
        began = ceil_to(world.book.began_at, SECOND)
        await play(world, 30)
        whole = floor_to(world.now, SECOND)
        await ask_without_redis(world, 10_000, start=whole - 10_000, end=whole)
        await ask_without_redis(world, 60_000, start=began, end=whole)
        await ask_without_redis(world, 2 * HOUR, start=began, end=whole)
        world.window.away = False
        await until(lambda: world.flusher.up)
        await world.answerable()
        whole = floor_to(world.now, SECOND)
        await ask(world, 2 * MINUTE, source=REDIS, start=whole - 2 * MINUTE, end=whole)


async def test_nothing_can_answer_in_the_first_second_without_the_window(autojump_clock, filling):
    world = World(filling=filling)
    world.window.away = True
    async with world.running():
        with pytest.raises(NothingCanAnswer):
            await world.spans.of(PAIRS).over(Span(world.now - MINUTE, world.now), world.now)


# ---- clocks ----


@pytest.mark.parametrize("minutes", [-45, -5, 5, 45])
async def test_answers_stay_true_after_a_step_of_the_clock(autojump_clock, filling, minutes):
    """Bars that were forgotten before a step back do not count as known."""
    world = World(flush_interval=30.0, filling=filling)
    async with world.running(slowly=True) as nursery:
        nursery.start_soon(play, world, 4 * 3_600, 17.3)
        await trio.sleep(2 * 3_600)
        await world.answerable()
        check(world, await world.spans.of(PAIRS).over(Span(world.now - HOUR, world.now), world.now))
        world.clock.offset = minutes * MINUTE
        for _ in range(3):
            await trio.sleep(100)
            for period in (5_000, MINUTE, 30 * MINUTE, HOUR, 3 * HOUR):
                await world.answerable()
                check(world, await world.spans.of(PAIRS).over(Span(world.now - period, world.now), world.now))


# ---- other boots ----


async def test_a_question_goes_over_the_bars_of_all_boots(autojump_clock, filling):
    """Three boots within two seconds give one answer of all their updates, exact to the ms."""
    world = World(filling=filling)
    for boot in ("boot2", "boot3", "boot4"):
        async with world.running():
            await until(lambda world=world: world.flusher.up)
            for price in range(5):
                world.send_one(price + 1.0, age=price)
            await until(lambda world=world: world.book.flushes.drained)
            await trio.sleep(0.3)
        world = world.successor(boot)
    async with world.running():
        await until(lambda: world.flusher.up)
        await ask(world, 5_000, source=REDIS)
        whole = floor_to(world.now, SECOND) + SECOND
        await trio.sleep((whole - world.now) / 1_000)
        world.window.away = True
        await trio.sleep(0.5)
        await ask_without_redis(world, 5_000, start=whole - 5_000, end=whole)


async def test_an_update_of_another_boot_counts_in_the_edges(autojump_clock, filling):
    world = World(filling=filling)
    second = NOON + 2 * SECOND
    world.window.stored_bars[PAIR] = {(second, "boot0"): Bar.of([second + 700], [3.0])}
    async with world.running():
        await trio.sleep(5.5)
        # The bar counts an update that is missing in Redis, so raw updates are not used.
        covered = await world.spans.of(PAIRS).over(Span(world.now - 3_000, world.now), world.now)
        assert covered.span == Span(second, NOON + 5 * SECOND)
        assert covered.bars[PAIR].count == 1


async def test_bars_that_are_forgotten_while_rows_are_read_are_not_missing(
    autojump_clock, filling, monkeypatch
):
    """Rows have just shown that Redis lost bars: rows then answer completely for the time before."""
    world = World(filling=filling)
    async with world.running():
        for _ in range(200):
            world.send_one(1.0)
            await trio.sleep(1)
        await trio.sleep(10)
        read = world.store.bars

        async def bars(*asked):
            found = await read(*asked)
            world.forget_bars(floor_to(world.now - 30_000, MINUTE))
            return found

        monkeypatch.setattr(world.store, "bars", bars)
        covered = await world.spans.of([PAIR]).over(Span(world.now - 2 * HOUR, world.now), world.now)
        assert covered.bars[PAIR].count == 200
