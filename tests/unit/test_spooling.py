from __future__ import annotations

import random

import pytest
import trio
from builders import EXCHANGES, NOON, SYMBOLS, World, lose_lock, until

from marketflow.app.share.rivals import HeldByAnother
from marketflow.app.share.spooling import BarsLost, SpooledBar
from marketflow.domain.periods import HOUR, MINUTE

LATENESS = 2 * MINUTE


class Service:
    """A world with a spool, started and stopped in the order of the real service."""

    def __init__(self, world):
        self.world = world
        self.spooling = world.share.spooling

    async def meet_another(self):
        """Another service has the database."""
        self.world.store.away = False
        self.world.store.taken = True
        lose_lock(self.world.store)
        with pytest.raises(HeldByAnother):
            await self.world.share.leases.database.ensure()

    async def start(self, nursery):
        await self.world.lease_database()
        await self.spooling.bring_in()
        nursery.start_soon(self.world.aggregator.run)
        nursery.start_soon(self.world.flusher.run)
        nursery.start_soon(self.spooling.remove_when_stored)

    async def run(self, seconds, *, every=0.5, seed=1):
        """Run for a while with traffic, then stop in order."""
        rng, world = random.Random(seed), self.world
        async with trio.open_nursery() as nursery:
            await self.start(nursery)
            end = trio.current_time() + seconds
            while trio.current_time() < end:
                updates = [(rng.choice(SYMBOLS), rng.uniform(1, 9), world.now) for _ in range(3)]
                world.send(rng.choice(EXCHANGES), updates)
                await trio.sleep(every)
            world.book.end()
        world.book.flushes.drop_pending()
        await self.spooling.save(1.0)
        world.check_ledgers()


async def test_a_start_that_is_cancelled_leaves_the_spool_as_it_is(autojump_clock):
    """A stop comes while the spool is read, so that its bars are not in the book."""
    world = World()
    world.window.away = world.store.away = True
    await Service(world).run(30)
    kept = list(world.spool.bars)
    assert kept
    second = World(
        boot="second",
        window=world.window.successor("second"),
        store=world.store,
        spool=world.spool,
        begun=False,
    )
    with trio.CancelScope() as scope:
        scope.cancel()
        await second.share.begin(second.now)
    second.book.end()
    await second.share.save(1.0)
    assert world.spool.bars == kept


async def test_what_no_store_would_take_is_brought_in_by_the_next_start(autojump_clock):
    """After a stop within a minute with both stores away, no update is missing in its row."""
    world = World()
    spool = world.spool
    world.window.away = world.store.away = True
    await Service(world).run(90)
    assert spool.bars
    following = world.successor("boot2")
    following.window.away = following.store.away = False
    await Service(following).run(100)
    following.check_rows(NOON + 3 * MINUTE)
    assert spool.bars == []


async def test_with_the_window_up_nothing_is_spooled(autojump_clock):
    """Redis has the bars, with or without rows."""
    world = World()
    spool = world.spool
    world.store.away = True
    await Service(world).run(30)
    assert spool.saves == 0


async def test_with_every_row_written_and_final_nothing_is_spooled(autojump_clock):
    world = World()
    spool = world.spool
    world.window.away = True
    service = Service(world)
    async with trio.open_nursery() as nursery:
        await service.start(nursery)
        await trio.sleep(MINUTE / 1_000)  # An earlier boot may have updates of the first minute.
        world.send_one(1.0)
        await trio.sleep(3 * MINUTE / 1_000)
        assert world.store.rows
        world.book.end()
    await service.spooling.save(1.0)
    assert spool.bars == []


@pytest.mark.parametrize("emptied", [False, True])
async def test_a_row_that_redis_knew_half_of_takes_in_late_updates_after_a_restart(emptied, autojump_clock):
    """Late updates rewrite it with Redis away, and after a restart, even if Redis comes back empty."""
    world = World()
    spool = world.spool
    service = Service(world)
    async with trio.open_nursery() as nursery:
        await service.start(nursery)
        world.send(EXCHANGES[0], [(SYMBOLS[0], 5.0, NOON), (SYMBOLS[0], 6.0, NOON)])
        await trio.sleep(65)
        world.window.away = True
        world.send(EXCHANGES[0], [(SYMBOLS[0], 9.0, NOON + 500)])
        await trio.sleep(2)
        world.check_rows(NOON + MINUTE)
        world.book.end()
    await service.spooling.save(1.0)
    world = world.successor("boot2")
    if emptied:
        world.window.empty()
    async with trio.open_nursery() as nursery:
        await Service(world).start(nursery)
        world.send(EXCHANGES[0], [(SYMBOLS[0], price, NOON + 700) for price in (1.0, 2.0, 3.0)])
        world.window.away = False
        await until(lambda: not spool.bars)
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    world.check_rows(NOON + MINUTE)


async def test_the_spool_stays_as_long_as_its_rows_may_be_rewritten(autojump_clock):
    """Redis goes away again after reading: rows are written, but only the spool would survive a crash."""
    world = World()
    spool = world.spool
    world.window.away = True
    await Service(world).run(20)
    world = world.successor("boot2")
    world.window.away = False
    async with trio.open_nursery() as nursery:
        await Service(world).start(nursery)
        await until(lambda: world.standing.history_known)
        world.window.away = True
        await trio.sleep(60)
        world.check_rows(NOON + MINUTE)
        assert spool.bars
        await trio.sleep(LATENESS / 1_000)
        assert not spool.bars
        nursery.cancel_scope.cancel()


async def test_the_spool_stays_until_a_store_has_what_was_in_it(autojump_clock):
    """A crash right after the start must not lose it."""
    world = World()
    spool = world.spool
    world.window.away = world.store.away = True
    await Service(world).run(20)
    spooled = list(spool.bars)
    for boot in ("boot2", "boot3"):
        world = world.successor(boot)
        async with trio.open_nursery() as nursery:
            await Service(world).start(nursery)
            await trio.sleep(10)
            assert spool.bars == spooled
            nursery.cancel_scope.cancel()
    world = world.successor("boot4")
    async with trio.open_nursery() as nursery:
        await Service(world).start(nursery)
        await trio.sleep(1)
        world.window.away = False
        await until(lambda: not spool.bars)
        world.check_stored_bars()
        nursery.cancel_scope.cancel()


async def test_spooled_again_and_again_it_is_all_there_in_the_end(autojump_clock):
    world = World()
    for boot in range(2, 6):
        world.window.away = world.store.away = True
        await Service(world).run(17, seed=boot)
        world = world.successor(f"boot{boot}")
    world.window.away = world.store.away = False
    await Service(world).run(70)
    world.check_rows(NOON + 2 * MINUTE)


async def test_minutes_folded_before_the_stop_are_spooled_too(autojump_clock):
    world = World(flush_interval=30.0)
    spool = world.spool
    world.window.away = world.store.away = True
    await Service(world).run(1.5 * 3_600, every=11.0)
    assert any(each.whole for each in spool.bars)
    assert any(not each.whole for each in spool.bars)
    world = world.successor("boot2")
    world.window.away = world.store.away = False
    await Service(world).run(70)
    world.check_rows(world.now - MINUTE)
    assert spool.bars == []


async def test_bars_in_both_the_spool_and_the_window_count_once(autojump_clock):
    """A Redis that was away still has bars of minutes that were folded and spooled meanwhile."""
    world = World(flush_interval=1.0)
    spool = world.spool
    world.store.away = True
    service = Service(world)
    async with trio.open_nursery() as nursery:
        await service.start(nursery)
        for _ in range(30):
            world.send_one(1.0)
            await trio.sleep(10)
        world.window.away = True
        await trio.sleep(HOUR / 1_000 - 100)
        world.book.end()
    await service.spooling.save(1.0)
    assert any(each.whole for each in spool.bars)
    world = world.successor("boot2")
    world.window.away = world.store.away = False
    await Service(world).run(10)
    world.check_rows(world.now - MINUTE)


async def test_what_cannot_be_spooled_is_lost_and_said_to_be(autojump_clock):
    """The error has the number of bars, the exchanges, and the times."""
    world = World()
    spool = world.spool
    world.window.away = world.store.away = spool.full = True
    with pytest.raises(BarsLost) as caught:
        await Service(world).run(90)
    lost = caught.value
    assert lost.count > 60
    assert lost.exchanges == sorted(EXCHANGES)
    assert NOON <= lost.first < NOON + MINUTE <= lost.last < world.now
    assert lost.failure is not None
    assert (lost.failure.place, lost.failure.reason) == ("/state", "No space left on device")


@pytest.mark.parametrize("held", [0, 10])
async def test_what_another_service_has_accepted_too_is_not_spooled(held, autojump_clock):
    """A service that had the stores for a while spools the bars until then, another one spools nothing."""
    world = World()
    spool = world.spool
    service = Service(world)
    world.window.away = True
    world.store.away = not held
    async with trio.open_nursery() as nursery:
        await service.start(nursery)
        for _ in range(held):
            world.send_one(1.0)
            await trio.sleep(1)
        world.store.away = True
        for _ in range(5):
            world.send_one(2.0)
            await trio.sleep(1)
        nursery.cancel_scope.cancel()
    world.book.flushes.drop_pending()
    await service.meet_another()
    with pytest.raises(BarsLost) as caught:
        await service.spooling.save(1.0)
    # The lock is checked once a second.
    spooled = sum(each.bar.count for each in spool.bars)
    assert held - 1 <= spooled <= held
    # The other one may have begun later than our lease expired.
    assert caught.value.failure is None
    assert caught.value.count == held + 5 - spooled


@pytest.mark.parametrize("ahead", [4_000, 0, -3_000, -100_000])
async def test_the_time_of_receipt_tells_what_another_service_may_have(ahead, autojump_clock):
    """Not the exchange's clock, which is wrong by that many ms. Late updates count by their receipt too."""
    world = World()
    spool = world.spool
    service = Service(world)
    world.window.away = True
    async with trio.open_nursery() as nursery:
        await service.start(nursery)
        await trio.sleep((50_500 - world.now % 60_000) / 1_000)
        for price in (1.0, 2.0):
            for _ in range(9):
                world.send_one(price, age=-ahead)
                await trio.sleep(1)
            world.store.away = True
        world.send_one(2.0, age=15_000 - ahead)
        nursery.cancel_scope.cancel()
    world.book.flushes.drop_pending()
    await service.meet_another()
    with pytest.raises(BarsLost) as caught:
        await service.spooling.save(1.0)
    # The lock is asked for once a second; one bar has updates from before and after it was lost.
    assert 7 <= len(spool.bars) <= 8
    assert {(each.bar.min, each.bar.max) for each in spool.bars} == {(1.0, 1.0)}
    assert caught.value.count == 18 - len(spool.bars)


async def test_what_redis_has_is_not_lost_to_another_service(autojump_clock):
    """It is in our own fields. Only bars that Redis has not acknowledged are reported as lost."""
    world = World()
    spool = world.spool
    service = Service(world)
    world.store.away = True
    async with trio.open_nursery() as nursery:
        await service.start(nursery)
        world.send_one(1.0)
        await trio.sleep(2)
        world.window.away = True
        world.send_one(2.0)
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    world.book.flushes.drop_pending()
    await service.meet_another()
    with pytest.raises(BarsLost) as caught:
        await service.spooling.save(1.0)
    assert (caught.value.count, len(spool.bars)) == (1, 0)


async def test_a_service_that_has_accepted_nothing_loses_nothing_to_another(autojump_clock):
    """It got the stop while it waited for the other one."""
    service = Service(World())
    await service.meet_another()
    await service.spooling.save(1.0)


@pytest.mark.parametrize("reverse", [False, True])
async def test_two_spools_of_the_same_bars_count_once(reverse, autojump_clock):
    """A stop was killed before it removed the old file, which has older copies of the same bars."""
    world = World(flush_interval=30.0)
    spool = world.spool
    world.window.away = world.store.away = True
    await Service(world).run(1.5 * 3_600, every=11.0)
    whole = [each for each in spool.bars if each.whole]
    assert whole
    seconds = [SpooledBar(each.pair, each.start, each.boot, each.bar, whole=False) for each in whole]
    spool.bars = spool.bars + whole + seconds
    if reverse:
        spool.bars.reverse()
    world = world.successor("boot2")
    world.window.away = world.store.away = False
    await Service(world).run(70)
    world.check_rows(world.now - MINUTE)


async def test_bars_of_recorded_seconds_are_kept_until_their_updates_enter(autojump_clock):
    """They are not adopted. A stop before the record was sifted leaves them in the spool."""
    world = World()
    world.window.away = world.store.away = True
    await Service(world).run(30)
    kept = sorted(world.spool.bars, key=repr)
    border = sorted(each.start for each in kept)[len(kept) // 2]
    before = [each for each in kept if each.start < border]
    assert before
    assert len(before) < len(kept)

    def following(boot):
        return World(
            boot=boot,
            window=world.window.successor(boot),
            store=world.store,
            spool=world.spool,
            begun=False,
        )

    second = following("second")
    await second.share.begin(second.now, recorded_from=border)
    assert {second_ for _, second_ in second.share.spooling.seconds_of(kept[0].pair[0])} <= {
        each.start for each in before
    }
    second.book.end()
    await second.share.save(1.0)
    assert sorted(world.spool.bars, key=repr) == kept
    third = following("third")
    await third.share.begin(third.now, recorded_from=border)
    third.share.spooling.recorded()
    third.book.end()
    await third.share.save(1.0)
    assert sorted(world.spool.bars, key=repr) == before
