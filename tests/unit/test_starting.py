"""The start of a book, also beside a boot that has not ended yet: what it knows, and what it cannot know."""

from __future__ import annotations

import pytest
import trio
from builders import EXCHANGES, NOON, World, until

from marketflow.app.answers import MEMORY, POSTGRES, NothingCanAnswer
from marketflow.app.ports import StoreTaken
from marketflow.app.share.rivals import LEASE_PATIENCE
from marketflow.app.stream.subscriptions import PriceStream
from marketflow.domain.periods import MINUTE, SECOND, Range, ceil_to, floor_to


def beside(world: World, **options) -> World:
    """Another boot on the same stores, which has not begun."""
    return World(
        boot="second",
        window=world.window.successor("second"),
        store=world.store,
        clock=world.clock,
        begun=False,
        **options,
    )


class Start:
    """A start that takes the stores and then begins, as the service does."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.seconds: float | None = None
        self.taken = False

    async def run(self) -> None:
        began = trio.current_time()
        try:
            await self.world.share.lease()
        except StoreTaken:
            self.taken = True
        else:
            self.world.book.begin(self.world.now)
        self.seconds = trio.current_time() - began

    @property
    def over(self) -> bool:
        return self.seconds is not None


async def cannot_answer(world: World) -> None:
    """Check that no question about a span has an answer."""
    with pytest.raises(NothingCanAnswer):
        await world.queries.statistics("lowest", None, None, Range("1m"))
    with pytest.raises(NothingCanAnswer):
        await world.queries.candles("BTCUSDT", None, "1m", None, None, 100)


@pytest.mark.parametrize("postgres", [True, False])
@pytest.mark.parametrize("redis", [True, False])
async def test_a_start_waits_for_no_store_that_is_away(redis, postgres, autojump_clock):
    world = World(begun=False)
    world.window.away, world.store.away = not redis, not postgres
    start = Start(world)
    await start.run()
    assert start.seconds == 0
    assert world.book.began_at == world.now


async def test_a_start_beside_a_living_boot_answers_nothing_and_ends(autojump_clock):
    """PostgreSQL is away, so only Redis can show the other boot."""
    first = World()
    async with first.running(aggregating=False) as nursery:
        await until(lambda: first.flusher.up)
        first.send_one(1.0)
        second = beside(first)
        second.store.away = True
        start = Start(second)
        nursery.start_soon(start.run)
        await trio.sleep(3)
        await cannot_answer(second)
        await until(lambda: start.over, seconds=15)
        assert start.taken
        assert start.seconds == pytest.approx(LEASE_PATIENCE, abs=0.3)
        assert second.book.began_at is None


async def test_what_another_boot_accepted_during_the_start_is_not_claimed_to_be_known(autojump_clock):
    """It is killed while this one waits, and then Redis goes away: its updates cannot be read."""
    first = World()
    second = beside(first)
    start = Start(second)
    first.store.taken = True
    async with trio.open_nursery() as nursery:
        async with first.running(aggregating=False):
            await until(lambda: first.flusher.up)
            nursery.start_soon(start.run)
            for price in range(1, 6):
                first.send_one(price)
                await trio.sleep(1.3)
        first.store.taken = False
        second.window.away = True
        await until(lambda: start.over, seconds=15)
    assert second.book.began_at is not None
    assert second.book.began_at > NOON + 6 * SECOND
    began = ceil_to(second.book.began_at, SECOND)
    async with second.running():
        while second.now < NOON + 3 * MINUTE:
            second.send_one(100.0)
            await trio.sleep(1)
        found = await second.queries.statistic("lowest", "BTCUSDT", None, Range("5m"))
        assert (found.start, found.price, found.source) == (began, 100.0, MEMORY)
        with pytest.raises(NothingCanAnswer):
            await second.queries.candles("BTCUSDT", None, "1m", NOON, None, 100)
        # The row of the interval with updates of both boots waits for the history.
        ends = sorted(end for _, _, end in second.store.rows)
        assert ends == [floor_to(began, MINUTE) + 2 * MINUTE]
        second.window.away = False
        await until(lambda: NOON + MINUTE in {end for _, _, end in second.store.rows}, seconds=15)
        (row,) = [row for row in second.store.rows.values() if row.end == NOON + MINUTE]
        assert row.bar.min == 1.0


async def test_a_clock_that_was_behind_at_the_start_does_not_make_more_known(autojump_clock):
    """Redis is away at the start of the second boot, whose clock is set right five seconds later."""
    first = World()
    async with first.running():
        await until(lambda: first.flusher.up)
        for price in range(1, 26):
            first.send_one(price)
            await trio.sleep(1)
    second = beside(first)
    second.window.away = True
    second.clock.offset = -30 * SECOND
    second.book.begin(second.now)
    began = ceil_to(second.now + 30 * SECOND, SECOND)
    async with second.running():
        await trio.sleep(5)
        second.clock.offset = 0
        while second.now < NOON + 3 * MINUTE:
            second.send_one(100.0)
            await trio.sleep(1)
        found = await second.queries.statistic("lowest", "BTCUSDT", None, Range("5m"))
        assert (found.start, found.price, found.source) == (began, 100.0, MEMORY)
        # The row of the minute with updates of both boots waits for the history.
        assert {end for _, _, end in second.store.rows} == {NOON + 2 * MINUTE}
        second.window.away = False
        await until(lambda: NOON + MINUTE in {end for _, _, end in second.store.rows}, seconds=15)
        (row,) = [row for row in second.store.rows.values() if row.end == NOON + MINUTE]
        assert row.bar.min == 1.0


async def test_a_clock_that_steps_ahead_later_does_not_make_our_rows_those_of_an_earlier_boot(autojump_clock):
    """Redis is away from the start. A machine that was suspended looks the same."""
    world = World()
    world.window.away = True
    async with world.running():
        for _ in range(4 * 60):
            world.send_one(1.0)
            await trio.sleep(1)
        before = {key: row.bar.count for key, row in world.store.rows.items()}
        assert len(before) > 1
        world.clock.offset = 10 * MINUTE
        await trio.sleep(2)
        world.window.away = False
        await until(lambda: world.flusher.up)
        await trio.sleep(10)
        assert {key: world.store.rows[key].bar.count for key in before} == before


async def test_sequences_and_event_ids_are_greater_than_those_of_the_boot_before(autojump_clock):
    """That boot accepted updates after this process was started."""
    first = World()
    second = beside(first)
    streams = [
        PriceStream(
            bars=world.bars,
            pairs=world.pairs,
            exchanges_of_mode=lambda: EXCHANGES,
            check=lambda *_: None,
            most_clients=1,
        )
        for world in (first, second)
    ]
    await trio.sleep(5)
    first.send_one(1.0)
    await trio.sleep(1)
    second.book.begin(second.now)
    second.send_one(2.0)
    ids = []
    for stream in streams:
        with stream.subscribed(None, None) as subscription:
            events = await subscription.receive()
            ids += [event.id for event in events]
    assert ids[0] < ids[1]
    bars = [world.book.bars.newest_bars.of(("exchange1", "BTCUSDT")) for world in (first, second)]
    assert bars[0].close_sequence < bars[1].close_sequence - 1_000


async def test_a_late_update_of_ours_does_not_hide_a_newer_one_that_a_row_tells(autojump_clock):
    """Redis is away, so only rows show what the boot before accepted."""
    first = World()
    async with first.running():
        await until(lambda: first.flusher.up)
        first.send_one(1.0)
        await until(lambda: bool(first.store.rows), seconds=70)
    second = beside(first)
    second.window.away = True
    second.book.begin(second.now)
    async with second.running():
        second.send_one(2.0, age=100 * SECOND)
        found = await second.queries.latest("BTCUSDT", None)
        assert (found.price, found.source) == (1.0, POSTGRES)
        second.send_one(3.0)
        found = await second.queries.latest("BTCUSDT", None)
        assert (found.price, found.source) == (3.0, MEMORY)
