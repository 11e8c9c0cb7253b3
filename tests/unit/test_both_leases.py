from __future__ import annotations

import math
from contextlib import suppress

import pytest
import trio
import trio.testing
from builders import NOON, World, lose_lock, play, until

from marketflow.app.ports import IntervalMismatch, StoreAway, StoreTaken, StoreUnfit
from marketflow.app.share.database_lease import LOST_PATIENCE
from marketflow.app.share.lease import EXPIRED_SECONDS
from marketflow.app.share.rivals import LEASE_PATIENCE, MOST_BETWEEN_ANSWERS, HeldByAnother, Wait
from marketflow.app.share.spooling import BarsLost

# ---- the wait for another boot ----


def waits(wait: Wait, at: float) -> float:
    """See another boot each half second from this time on; returns when that was long enough."""
    while not wait.another(at):
        at += 0.5
    return at


def test_a_wait_is_over_when_another_was_seen_for_the_whole_patience():
    wait = Wait()
    assert not wait.waiting
    assert waits(wait, 5.0) == 5.0 + LEASE_PATIENCE
    assert wait.waiting


def test_an_outage_begins_the_patience_again_and_forgets_nobody():
    wait = Wait()
    wait.interrupt()
    assert not wait.waiting
    wait.another(5.0)
    wait.another(6.0)
    wait.interrupt()
    assert wait.waiting
    assert not wait.counting
    assert waits(wait, 7.0) == 7.0 + LEASE_PATIENCE
    wait.end()
    assert not wait.waiting


def test_a_wait_that_has_ended_begins_again():
    wait = Wait()
    wait.another(5.0)
    wait.another(6.0)
    wait.end()
    assert not wait.waiting
    assert waits(wait, 7.0) == 7.0 + LEASE_PATIENCE


def test_time_in_which_we_stood_still_is_not_waited():
    """The process was stopped, or the machine asleep. What it sees then first may be old."""
    wait = Wait()
    wait.another(5.0)
    assert not wait.another(3_600.0)
    assert waits(wait, 3_600.5) == 3_600.0 + LEASE_PATIENCE - MOST_BETWEEN_ANSWERS
    wait = Wait()
    wait.another(5.0, LOST_PATIENCE)
    assert not wait.another(3_600.0, LOST_PATIENCE)
    assert wait.another(3_601.0, LOST_PATIENCE)


# ---- the lease of the database ----


@pytest.mark.parametrize("ours", [False, True], ids=["never ours", "was ours"])
async def test_an_outage_begins_the_wait_for_another_boot_again(ours, autojump_clock):
    """Nobody uses a database that is away. Who had it before may have it again, and is not forgotten."""
    world = World()
    lease, patience = world.share.leases.database, LOST_PATIENCE if ours else LEASE_PATIENCE
    if ours:
        await lease.ensure()
    lose_lock(world.store)
    world.store.taken = True
    with pytest.raises(HeldByAnother):
        await lease.ensure()
    assert lease.another
    world.store.away = True
    with pytest.raises(StoreAway):
        await lease.ensure()
    assert lease.another
    await trio.sleep(patience)
    world.store.away = False
    for _ in range(int(2 * patience)):
        with pytest.raises(HeldByAnother):
            await lease.ensure()
        await trio.sleep(0.5)
    with pytest.raises(StoreTaken):
        await lease.ensure()


async def test_a_service_survives_another_that_ends_soon_after_an_outage(autojump_clock):
    """It was seen before the outage as well, and that time does not count."""
    world = World()
    async with world.running():
        await trio.sleep(3)
        lose_lock(world.store)
        world.store.taken = True
        await until(lambda: "holds the database" in (world.postgres.error or ""))
        world.store.away = True
        await trio.sleep(5)
        assert world.postgres.error == "told to be away"
        world.store.away = False
        await until(lambda: "holds the database" in (world.postgres.error or ""))
        world.store.taken = False
        await until(lambda: world.postgres.up)
        world.send_one(1.0)
        await until(lambda: bool(world.store.rows), seconds=70)


@pytest.mark.parametrize(
    ("answer", "held"),
    [(None, True), (StoreAway("away"), False), (StoreTaken(), False), (IntervalMismatch(1, 2), False)],
)
async def test_what_the_database_answered_last_holds_while_it_is_asked_again(answer, held, autojump_clock):
    """The lease on Redis relies on it at any time."""
    world = World()
    lease, take = world.share.leases.database, world.store.lease
    answered = trio.Event()

    async def slow():
        await answered.wait()
        if answer is not None:
            raise answer
        return await take()

    await lease.ensure()
    world.store.lease = slow
    async with trio.open_nursery() as nursery:

        async def ask():
            with suppress(StoreAway, StoreTaken, StoreUnfit):
                await lease.ensure()

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert lease.held
        answered.set()
    assert lease.held is held


# ---- both ----


@pytest.mark.parametrize("store", ["database", "window"])
async def test_a_start_that_stood_still_looks_again(store, autojump_clock):
    """Another boot was seen right before, and has ended meanwhile. The clock of a stopped process goes on."""
    world = World()
    if store == "database":
        world.store.taken = True
    else:
        world.window.shelf.hold("another")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.share.lease)
        await trio.sleep(1)
        world.store.taken = False  # The key on the window expires.
        autojump_clock.jump(3_600)
    assert world.share.leases.database.held
    assert world.window.shelf.holder == "boot1"


@pytest.mark.parametrize("seconds", [1.0, 5.0, 30.0])
async def test_a_start_does_not_wait_longer_for_a_store_that_hangs(seconds, autojump_clock):
    """Another boot was seen once; then the store answers nothing, until its time limit."""
    world = World()
    world.store.taken = True
    began = trio.current_time()

    async def hang():
        await trio.sleep(seconds)
        raise StoreAway("no answer in time")

    async with trio.open_nursery() as nursery:

        async def start():
            with pytest.raises(StoreTaken):
                await world.share.lease()

        nursery.start_soon(start)
        await trio.sleep(0.05)
        world.store.lease = hang
    assert LEASE_PATIENCE - 0.1 < trio.current_time() - began < LEASE_PATIENCE + 1.5


@pytest.mark.parametrize("asking", [False, True], ids=["between", "while asking"])
async def test_an_older_redis_with_a_dead_boots_lease_ends_nobody(asking, autojump_clock):
    """A replica that lags becomes the master. PostgreSQL's lock, which is ours, says that it is dead."""
    first = World()
    async with first.running():
        await until(lambda: first.flusher.up)
        lagging = first.window.snapshot()
        first.book.end()
        await first.flusher.ended.wait()
    second = first.successor("boot2")
    take, asked = second.store.lease, trio.Event()

    async def slow():
        asked.set()
        await trio.sleep(2)
        return await take()

    async with second.running():
        await until(lambda: second.flusher.up)
        if asking:
            second.store.lease = slow
            await asked.wait()
        second.window.restore(lagging)
        await until(lambda: not second.flusher.up)
        await until(lambda: second.flusher.up, seconds=4)
        assert second.window.shelf.holder == "boot2"


@pytest.mark.parametrize(("free_after", "seconds"), [(3, LEASE_PATIENCE), (7, 7 + EXPIRED_SECONDS)])
async def test_both_stores_are_waited_for_with_one_patience(free_after, seconds, autojump_clock):
    """The database is free after a while; another boot lives on the window."""
    first = World()
    async with first.running(aggregating=False), trio.open_nursery() as nursery:
        await until(lambda: first.flusher.up)
        second = World(boot="second", window=first.window.successor("second"), clock=first.clock)
        second.store.taken = True

        async def start():
            began = trio.current_time()
            with pytest.raises(StoreTaken, match="running on this Redis"):
                await second.share.lease()
            assert trio.current_time() - began == pytest.approx(seconds, abs=0.2)

        nursery.start_soon(start)
        await trio.sleep(free_after)
        second.store.taken = False


@pytest.mark.parametrize("ends_after", [0.2, 5.0, 8.7, 9.0, 9.8])
@pytest.mark.parametrize("moves", [False, True], ids=["killed", "its requests arrive late"])
async def test_a_start_takes_over_from_a_boot_that_ends_in_time(ends_after, moves, autojump_clock):
    """Its lock is free at once, but its key is not, and late requests may even renew that for a moment."""
    first = World()
    second = World(boot="second", window=first.window.successor("second"), clock=first.clock)
    second.store.taken = True
    async with trio.open_nursery() as nursery:
        alive = trio.CancelScope()

        async def run():
            with alive:
                async with first.running(aggregating=False):
                    await trio.sleep_forever()

        nursery.start_soon(run)
        await until(lambda: first.flusher.up)
        began = trio.current_time()
        nursery.start_soon(second.share.lease)
        await trio.sleep(ends_after)
        alive.cancel()
        second.store.taken = False
        for number in range(3 * moves):
            await trio.sleep(0.5)
            first.window.shelf.marker = f"boot1:{900 + number}"
    assert first.window.shelf.holder == "second"
    assert trio.current_time() - began < ends_after + EXPIRED_SECONDS


@pytest.mark.parametrize("away_first", ["database", "window"])
async def test_a_start_that_has_seen_another_on_one_store_does_not_serve_when_that_goes_away(
    away_first, autojump_clock
):
    """The same rule for both stores."""
    first = World()
    async with first.running(aggregating=False), trio.open_nursery() as nursery:
        await until(lambda: first.flusher.up)
        second = World(boot="second", window=first.window.successor("second"), clock=first.clock)
        second.store.taken = away_first == "database"

        async def start():
            began = trio.current_time()
            with pytest.raises(StoreTaken):
                await second.share.lease()
            assert trio.current_time() - began == pytest.approx(LEASE_PATIENCE, abs=0.2)

        nursery.start_soon(start)
        await trio.sleep(1)
        second.store.away = second.window.away = True


async def test_when_each_store_was_ours_last_counts_only_beside_another_boot(autojump_clock):
    world = World()
    async with world.running():
        await trio.sleep(3)
        assert world.share.leases.leased_until == math.inf
        last = trio.current_time()
        lose_lock(world.store)
        world.store.taken = True
        await until(lambda: world.share.leases.database.another)
        assert last - 1 <= world.share.leases.leased_until <= last


async def test_an_outage_does_not_make_us_spool_what_another_boot_counts(autojump_clock):
    """Redis is away. Another boot has the database, which then times out once before our stop."""
    world, answers = World(), {"taken": StoreTaken(), "away": StoreAway("timeout")}
    async with world.running():
        await play(world, 3)
        world.window.away = True
        await trio.sleep(1)
        take, answer = world.store.lease, "taken"

        async def lease():
            if answer:
                raise answers[answer]
            return await take()

        world.store.lease = lease
        await until(lambda: world.share.leases.database.another)
        held = world.share.leases.leased_until
        answer = "away"
        await play(world, 3)
        assert world.share.leases.leased_until == held
        world.book.end()
        await world.flusher.ended.wait()
        with pytest.raises(BarsLost, match="beside another service"):
            await world.share.save(1)
        assert world.spool.bars
        assert all(each.start < NOON + held * 1_000 for each in world.spool.bars)
        answer = None
        await world.share.leases.database.ensure()
        assert world.share.leases.leased_until == math.inf
