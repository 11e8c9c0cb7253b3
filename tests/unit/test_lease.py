from __future__ import annotations

import pytest
import trio
from builders import World, play, until
from structlog.testing import capture_logs

from marketflow.adapters.cache.lock import LOCK_TTL
from marketflow.adapters.cache.memory import LOCK_SECONDS
from marketflow.app.ports import Sight, StoreTaken
from marketflow.app.share.rivals import LEASE_PATIENCE
from marketflow.app.share.window_lease import (
    DEAD_SECONDS,
    FREE_SECONDS,
    KEY_SECONDS,
    LEASE_SECONDS,
    LeaseMachine,
    LeaseState,
    Move,
)

US, OTHER, DEAD = "us", "other", "dead"
SEEKING, HELD, LAPSED = LeaseState.SEEKING, LeaseState.HELD, LeaseState.LAPSED
WATCHING, TAKEN = LeaseState.WATCHING, LeaseState.TAKEN


class At:
    """A state machine in a given state, with looks each 0.25 s."""

    def __init__(self, state: LeaseState) -> None:
        self.now = 100.0
        self.machine = LeaseMachine(US)
        if state is not SEEKING:
            self.machine.looked(Sight(DEAD, f"{DEAD}:7"), self.now, granted=True)
            self.machine.took(Sight(DEAD, f"{DEAD}:7"), self.now)
            self.machine.wrote(Sight(US, f"{DEAD}:7"), self.now)
        match state:
            case LeaseState.LAPSED:
                self.now += LEASE_SECONDS + 0.1
                self.machine.lapse(self.now)
            case LeaseState.WATCHING:
                self.machine.wrote(Sight(US, f"{OTHER}:1"), self.now)
        assert self.machine.state is state

    def look(self, holder: str | None, marker: str | None, *, granted: bool = False) -> Move:
        self.now += 0.25
        return self.machine.looked(Sight(holder, marker), self.now, granted=granted)

    def looks(
        self, holder: str | None, *markers: str | None, granted: bool = False, seconds: float = 0.0
    ) -> list[Move]:
        """Look at each of the markers, or for so long at one."""
        if seconds:
            markers *= 1 + int(seconds / 0.25)
        return [self.look(holder, marker, granted=granted) for marker in markers]


MOVING = [f"{OTHER}:{number}" for number in range(1, 100)]


@pytest.mark.parametrize(
    ("state", "holder", "marker", "granted", "move", "after"),
    [
        # At a start there may be no other boot, or one to wait for.
        (SEEKING, None, None, False, Move.TAKE, SEEKING),
        (SEEKING, None, f"{US}:3", False, Move.TAKE, SEEKING),
        (SEEKING, None, f"{OTHER}:3", False, Move.WAIT, SEEKING),
        (SEEKING, US, None, False, Move.WRITE, HELD),
        (SEEKING, US, f"{OTHER}:3", False, Move.WRITE, HELD),
        (SEEKING, OTHER, None, False, Move.WAIT, SEEKING),
        (SEEKING, OTHER, f"{OTHER}:3", True, Move.WAIT, SEEKING),
        # It was ours.
        (LAPSED, None, None, False, Move.TAKE, LAPSED),
        (LAPSED, None, f"{OTHER}:3", False, Move.TAKE, LAPSED),
        (LAPSED, US, f"{US}:3", False, Move.WRITE, HELD),
        (LAPSED, OTHER, f"{US}:3", False, Move.END, TAKEN),
        (LAPSED, OTHER, f"{OTHER}:3", False, Move.END, TAKEN),
        (LAPSED, OTHER, f"{OTHER}:3", True, Move.WAIT, SEEKING),
        (LAPSED, DEAD, f"{DEAD}:7", True, Move.WAIT, SEEKING),
        # It is ours, and another boot has written.
        (WATCHING, US, f"{OTHER}:1", False, Move.WAIT, WATCHING),
        (WATCHING, None, f"{OTHER}:1", False, Move.TAKE, LAPSED),
        (WATCHING, OTHER, f"{OTHER}:1", False, Move.END, TAKEN),
        (WATCHING, OTHER, f"{OTHER}:1", True, Move.WAIT, SEEKING),
        (WATCHING, DEAD, f"{DEAD}:1", False, Move.WAIT, SEEKING),
    ],
)
def test_what_a_look_leads_to(state, holder, marker, granted, move, after):
    at = At(state)
    assert at.look(holder, marker, granted=granted) is move
    assert at.machine.state is after


@pytest.mark.parametrize(
    ("holder", "marker", "after"),
    [
        (US, None, HELD),
        (None, None, LAPSED),
        (OTHER, None, LAPSED),
        (OTHER, f"{OTHER}:1", LAPSED),
        (US, f"{OTHER}:1", WATCHING),
    ],
)
def test_what_a_write_has_met(holder, marker, after):
    at = At(HELD)
    at.machine.wrote(Sight(holder, marker), at.now)
    assert at.machine.state is after


def test_the_marker_of_the_boot_before_is_met_once_and_means_nothing():
    at = At(SEEKING)
    at.machine.took(Sight(None, f"{DEAD}:7"), at.now)
    at.machine.wrote(Sight(US, f"{DEAD}:7"), at.now)
    assert at.machine.state is HELD
    at.machine.wrote(Sight(US, f"{DEAD}:8"), at.now)
    assert at.machine.state is WATCHING


@pytest.mark.parametrize(("holder", "granted"), [(None, False), (None, True), (OTHER, False), (OTHER, True)])
def test_somebody_who_writes_is_waited_for_and_then_it_ends(holder, granted):
    """This includes a writer that does not know the lease, with any answer of the database."""
    at = At(SEEKING)
    moves = at.looks(holder, *MOVING, granted=granted)
    count = moves.index(Move.END)
    assert set(moves[:count]) == {Move.WAIT}
    assert count * 0.25 == LEASE_PATIENCE
    assert at.machine.state is TAKEN


def test_a_holder_that_stands_still_is_dead_if_the_database_says_so_too():
    """The lock of another database proves nothing about this Redis."""
    assert Move.TAKE not in At(SEEKING).looks(OTHER, "other:3", seconds=LEASE_PATIENCE - 0.5)
    moves = At(SEEKING).looks(OTHER, "other:3", seconds=DEAD_SECONDS, granted=True)
    assert moves == [Move.WAIT] * 6 + [Move.TAKE]


def test_without_a_holder_the_marker_must_stand_still_for_a_moment():
    moves = At(SEEKING).looks(None, "other:3", seconds=FREE_SECONDS)
    assert moves == [Move.WAIT] * 3 + [Move.TAKE]


def test_time_in_which_nobody_could_have_written_is_no_standing_still():
    """Time does not count while Redis is away, or while it or we hang between two looks."""
    at = At(SEEKING)
    at.looks(OTHER, "other:3", seconds=DEAD_SECONDS - 0.25, granted=True)
    at.machine.lost_sight()
    assert at.look(OTHER, "other:3", granted=True) is Move.WAIT
    at.now += 5
    assert at.look(OTHER, "other:3", granted=True) is Move.WAIT


def test_patience_is_from_the_first_sight_of_the_other_since_redis_answers():
    at = At(SEEKING)
    at.looks(OTHER, *MOVING[:30])
    at.machine.lost_sight()
    assert Move.END not in at.looks(OTHER, *MOVING[:39])


def test_a_dead_one_that_lives_after_all_ends_us():
    """Its lease may be back because Redis came back older; then nobody writes, and it expires."""
    at = At(LAPSED)
    assert at.looks(DEAD, "dead:7", "dead:7", "dead:7") == [Move.WAIT] * 3
    assert at.look(None, "us:1") is Move.TAKE
    at = At(LAPSED)
    assert at.looks(DEAD, "dead:7", "dead:8") == [Move.WAIT, Move.END]


def test_one_that_we_never_met_is_dead_if_the_database_says_so_and_it_writes_nothing():
    """Redis has come back with the lease of a boot that had stopped in order before the one before us."""
    at = At(LAPSED)
    assert at.looks(OTHER, "other:3", granted=True, seconds=DEAD_SECONDS) == [Move.WAIT] * 6 + [Move.TAKE]
    at = At(LAPSED)
    assert at.looks(OTHER, "other:3", "other:4", granted=True) == [Move.WAIT, Move.END]


def test_one_stray_write_is_waited_out_and_more_end_us():
    """A boot that was frozen in a write completes it, and then sees who has the lease."""
    assert At(WATCHING).looks(US, "other:1", seconds=FREE_SECONDS) == [Move.WAIT] * 3 + [Move.WRITE]
    assert At(WATCHING).looks(US, "other:1", "other:2") == [Move.WAIT, Move.END]


def test_late_writes_of_the_boot_before_are_waited_out_however_many_they_are():
    """Its network held them up. When it is back they arrive one after another, and that boot ends."""
    late = [f"{DEAD}:{number}" for number in range(8, 11)]
    at = At(WATCHING)
    assert at.looks(US, *late) == [Move.WAIT] * 3
    assert at.looks(US, late[-1], seconds=FREE_SECONDS)[-1] is Move.WRITE
    assert at.machine.state is HELD


LATE = f"{DEAD}:8"
"""A write of the boot before us that was held up on its way."""


@pytest.mark.parametrize(
    ("state", "holder", "markers", "after"),
    [
        # Late writes are no sign of life, of whichever known sender and in whichever order.
        (WATCHING, US, [f"{US}:6", f"{US}:5"], WATCHING),
        (WATCHING, US, [f"{US}:6", LATE, f"{US}:5", f"{DEAD}:9"], WATCHING),
        (WATCHING, US, [f"{US}:6", None], WATCHING),
        (LAPSED, DEAD, [f"{DEAD}:7", f"{US}:5"], SEEKING),
        (LAPSED, DEAD, [f"{DEAD}:7", None], SEEKING),
        (SEEKING, DEAD, [f"{DEAD}:7", f"{US}:5"], SEEKING),
        (SEEKING, None, [f"{DEAD}:7", f"{US}:5"], SEEKING),
        # Nobody tells the holder that it has been outlived, so it may be alive.
        (LAPSED, DEAD, [f"{DEAD}:7", f"{DEAD}:8"], TAKEN),
        # Of others each write is a sign of life.
        (WATCHING, US, [f"{US}:6", f"{OTHER}:1"], TAKEN),
        (LAPSED, DEAD, [f"{DEAD}:7", f"{OTHER}:1"], TAKEN),
    ],
)
def test_only_writes_of_a_living_boot_end_us(state, holder, markers, after):
    at = At(state)
    moves = at.looks(holder, *markers)
    assert at.machine.state is after
    assert moves[:-1] == [Move.WAIT] * (len(moves) - 1)
    assert moves[-1] in ({Move.END} if after is TAKEN else {Move.WAIT, Move.TAKE})
    assert not at.machine.rival.writes, "a stop would not spool beside another boot"


def test_after_late_writes_the_window_is_ours_again():
    at = At(WATCHING)
    assert at.looks(US, LATE, f"{US}:6", f"{US}:5") == [Move.WAIT] * 3
    assert at.looks(US, f"{US}:5", seconds=FREE_SECONDS)[-1] is Move.WRITE
    at = At(LAPSED)
    assert at.looks(DEAD, LATE, f"{US}:5", granted=True) == [Move.WAIT] * 2
    assert at.looks(DEAD, f"{US}:5", seconds=DEAD_SECONDS, granted=True)[-1] is Move.TAKE


def test_another_boot_that_is_waited_for_has_written():
    at = At(SEEKING)
    assert at.looks(OTHER, f"{OTHER}:1", f"{OTHER}:2") == [Move.WAIT] * 2
    assert at.machine.rival.writes


def test_the_boot_before_that_does_not_end_ends_us():
    """It writes for longer than late writes may take to arrive: it is alive."""
    at = At(WATCHING)
    moves = at.looks(US, *(f"{DEAD}:{number}" for number in range(8, 60)))
    assert moves[: int(LEASE_PATIENCE / 0.25)] == [Move.WAIT] * int(LEASE_PATIENCE / 0.25)
    assert Move.END in moves
    assert at.machine.state is TAKEN


def test_the_key_expires_after_the_lease_in_both_windows():
    assert LEASE_SECONDS < KEY_SECONDS == LOCK_SECONDS == LOCK_TTL / 1_000


def test_the_lease_counts_from_the_sending_of_the_last_write():
    at = At(HELD)
    at.machine.wrote(Sight(US, None), at.now + 1)
    at.machine.lapse(at.now + 1 + LEASE_SECONDS)
    assert at.machine.state is HELD
    at.machine.lapse(at.now + 1.1 + LEASE_SECONDS)
    assert at.machine.state is LAPSED


# ---- with a flusher, over a store in memory ----


def rival(world: World, boot: str = "rival", **options) -> World:
    """Another boot on the same window, with its own database."""
    return World(boot=boot, window=world.window.successor(boot), clock=world.clock, **options)


async def takes_hold(world: World) -> float:
    """Take the lease at a start; returns the seconds that it took."""
    began = trio.current_time()
    await world.lease_window()
    return trio.current_time() - began


async def ends_with_store_taken(world: World) -> float:
    """Run until it ends with StoreTaken; returns the seconds that it took."""
    began = trio.current_time()
    with pytest.RaisesGroup(StoreTaken, flatten_subgroups=True):
        async with world.running(aggregating=False):
            await trio.sleep(60)
    return trio.current_time() - began


async def test_nobody_is_waited_for_on_an_empty_window(autojump_clock):
    assert await takes_hold(World()) == 0


async def test_an_orderly_stop_leaves_nothing_to_wait_for(autojump_clock):
    first = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.flusher.run)
        await until(lambda: first.flusher.up)
        first.send_one(1.0)
        first.book.end()
    assert first.window.shelf.holder is None
    assert first.window.shelf.members
    assert await takes_hold(rival(first)) == 0


async def test_a_start_beside_a_living_boot_writes_nothing_and_ends(autojump_clock):
    """This holds with its own database or none; the running boot is not affected."""
    world = World()
    second = rival(world)
    await second.lease_database()
    async with world.running(aggregating=False):
        await until(lambda: world.flusher.up)
        world.send_one(1.0)
        with pytest.raises(StoreTaken, match="running on this Redis: it holds it"):
            await takes_hold(second)
        assert not second.window.attempts
        assert not second.book.bars.pairs
        assert "another marketflow holds it" in second.redis.error
        assert world.flusher.up


async def test_a_start_that_has_seen_another_does_not_serve_when_the_window_goes_away(autojump_clock):
    """Otherwise both would serve until the window is back."""
    world = World()
    second = rival(world)
    async with world.running(aggregating=False), trio.open_nursery() as nursery:
        await until(lambda: world.flusher.up)

        async def start():
            with pytest.raises(StoreTaken, match="holds it"):
                await takes_hold(second)

        began = trio.current_time()
        nursery.start_soon(start)
        await until(lambda: second.redis.error)
        second.window.away = True
    assert trio.current_time() - began == pytest.approx(LEASE_PATIENCE, abs=0.2)


@pytest.mark.parametrize(("database", "seconds"), [(True, DEAD_SECONDS), (False, 5.0)])
async def test_a_start_after_a_kill(database, seconds, autojump_clock):
    """The lease expires, or database and marker show that its holder is dead."""
    first = World()
    async with first.running(aggregating=False):
        await until(lambda: first.flusher.up)
    second = rival(first)
    if database:
        await second.lease_database()
    with capture_logs() as logs:
        assert seconds - 0.7 < await takes_hold(second) < seconds + 0.7
    waiting = "lease on Redis awaited"
    assert [each["event"] for each in logs] == [waiting, "store away", "lease on Redis taken"]


async def test_a_marketflow_that_does_not_know_of_the_hold_is_found_by_its_marker(autojump_clock):
    """An older version's marker moves: a start beside it ends, and so does a running service."""
    world = World()

    async def older_version():
        for number in range(10_000):
            world.window.shelf.marker = f"older:{number}"
            await trio.sleep(0.4)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(older_version)
        await trio.sleep(0.1)
        with pytest.raises(StoreTaken, match="has written last"):
            await takes_hold(world)
        nursery.cancel_scope.cancel()
    running = rival(world)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends_with_store_taken, running)
        await until(lambda: running.flusher.up)
        nursery.start_soon(older_version)
        await until(lambda: len(nursery.child_tasks) == 1, seconds=2)
        nursery.cancel_scope.cancel()


async def test_another_boot_in_the_lock_ends_a_running_service(autojump_clock):
    world = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends_with_store_taken, world)
        await until(lambda: world.flusher.up)
        world.window.shelf.lock = "other", trio.current_time() + 5
        await until(lambda: not nursery.child_tasks, seconds=2)
    assert world.window.shelf.holder == "other"


async def test_an_emptied_window_is_taken_again_at_once(autojump_clock):
    world = World()
    async with world.running(aggregating=False):
        for price in range(1, 4):
            world.send_one(price)
            await trio.sleep(0.5)
        world.window.empty()
        await trio.sleep(0.6)
        assert world.window.shelf.holder == "boot1"
        await until(lambda: world.flusher.up, seconds=2)
        world.check_window()


async def test_a_hold_that_expired_during_an_outage_is_taken_again(autojump_clock):
    world = World()
    async with world.running(aggregating=False):
        await until(lambda: world.flusher.up)
        world.window.away = True
        await trio.sleep(7)
        assert world.window.shelf.holder is None
        world.window.away = False
        await until(lambda: world.flusher.up, seconds=2)
        assert world.window.shelf.holder == "boot1"


async def test_a_hold_that_another_took_during_an_outage_of_ours_ends_us(autojump_clock):
    world = World()
    second = rival(world)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends_with_store_taken, world)
        await until(lambda: world.flusher.up)
        world.window.away = True
        assert await takes_hold(second) < LEASE_PATIENCE
        async with second.running(aggregating=False):
            await until(lambda: second.flusher.up)
            attempts = len(world.window.attempts)
            world.window.away = False
            await until(lambda: not nursery.child_tasks, seconds=2)
            assert len(world.window.attempts) == attempts, "nothing more was written"
            assert second.flusher.up


async def test_a_window_that_comes_back_with_the_hold_of_the_boot_before(autojump_clock):
    """The snapshot is older than our lease. That boot is known to be dead."""
    first = World()
    async with first.running(aggregating=False):
        await until(lambda: first.flusher.up)
        snapshot = first.window.snapshot()
    second = rival(first)
    await second.lease_database()
    await takes_hold(second)
    async with second.running(aggregating=False):
        second.send_one(1.0)
        await until(lambda: second.flusher.up)
        second.window.restore(snapshot)
        await until(lambda: not second.flusher.up)
        await until(lambda: second.flusher.up, seconds=4)
        second.check_window()


async def test_a_start_with_the_window_away_treats_its_return_as_a_start(autojump_clock):
    """It never had the lease: the lease that it finds belongs to a dead boot, or to one that lives."""
    first = World()
    second = rival(first)
    second.window.away = True
    async with second.running(aggregating=False):
        async with first.running(aggregating=False):
            await until(lambda: first.flusher.up)
        second.send_one(1.0)
        await trio.sleep(1)
        second.window.away = False
        await trio.sleep(1)
        assert not second.window.attempts, "nothing is written meanwhile"
        assert second.redis.error == "another marketflow holds it (boot boot1), waiting until it ends"
        await until(lambda: second.flusher.up, seconds=6)
        second.check_window()
    third = rival(second, "third")
    async with second.running(aggregating=False):
        assert await ends_with_store_taken(third) == pytest.approx(LEASE_PATIENCE, abs=0.5)


async def test_a_stop_while_it_waits_ends_at_once(autojump_clock):
    """Pending updates are dropped and counted, and the other's lease stays."""
    first = World()
    second = rival(first)
    async with first.running(aggregating=False):
        await until(lambda: first.flusher.up)
        second.send_one(1.0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(second.flusher.run)
            await trio.sleep(1)
            second.book.end()
            with trio.fail_after(1):
                await second.flusher.ended.wait()
        assert first.window.shelf.holder == "boot1"
        second.check_ledgers()


async def test_a_stop_spools_beside_late_writes_of_the_boot_before(autojump_clock):
    """That boot is dead, so nobody else has what we received."""
    first = World()
    async with first.running():
        await play(first, 3)
    world = first.successor("boot2")
    async with world.running():
        await until(lambda: world.flusher.up)
        await play(world, 3)
        for number in range(5):
            world.window.shelf.marker = f"boot1:{900 + number}"
            await trio.sleep(0.3)
            world.send_one(5.0)
        assert not world.flusher.up
        assert not world.share.leases.window.another
        world.book.end()
        await world.flusher.ended.wait()
        await world.share.save(1)
        assert world.spool.bars
