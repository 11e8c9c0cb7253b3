"""When the flusher writes, and that it sleeps while there is nothing to write."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
from builders import EXCHANGES, WallClock, WatchedWindow, World, batch_of, until

from marketflow.app.instruments.clocks import Beat

BEAT = 0.025
"""Seconds between two beats of the feeds, and of the flusher, at a flush interval of 50 ms."""
LATE = 0.005
"""Seconds after a beat, at which a flush that had to wait for it is over."""


class NotedWindow(WatchedWindow):
    """Notes when updates were written."""

    def __init__(self) -> None:
        super().__init__(boot="boot1")
        self.written_at: list[float] = []

    async def post(self, flush):
        if flush.flush.updates:
            self.written_at.append(trio.current_time())
        return await super().post(flush)


class Steps(trio.abc.Instrument):
    """Counts the steps of the flusher's task."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += "Flusher.run" in task.name


async def whole(world: World) -> None:
    """Wait until the flusher has nothing to do, and then until a beat."""
    await until(lambda: world.flusher.up and not world.book.flushes.waiting)
    await trio.sleep_until((trio.current_time() // BEAT + 3) * BEAT)


def world_of() -> tuple[World, NotedWindow]:
    window = NotedWindow()
    return World(window=window, clock=WallClock()), window


async def test_without_updates_it_wakes_up_for_the_heartbeat_only(autojump_clock):
    world, window = world_of()
    async with world.running(aggregating=False):
        await whole(world)
        before, steps = len(window.attempts), Steps()
        trio.lowlevel.add_instrument(steps)
        await trio.sleep(20)
        trio.lowlevel.remove_instrument(steps)
        heartbeats = len(window.attempts) - before
        assert 38 <= heartbeats <= 42  # two a second: they also renew the lease
        assert steps.count < 20 * heartbeats


@pytest.mark.parametrize("after", [0.0, 0.001, 0.012, 0.024, 0.1, 0.49])
async def test_an_update_after_a_pause_is_written_at_once(after, autojump_clock):
    """It does not wait for a beat: its feed has."""
    world, window = world_of()
    async with world.running(aggregating=False):
        await whole(world)
        await trio.sleep(after)
        world.send_one(1.0)
        entered = trio.current_time()
        await until(lambda: world.book.flushes.drained)
        assert window.written_at == [entered]


async def test_feeds_that_read_at_the_same_beat_share_a_flush(autojump_clock):
    """The one that sleeps for all goes on in the same turn of the event loop as the others."""
    world, window = world_of()
    beat = Beat(BEAT)

    async def feed(exchange: str) -> None:
        for _ in range(20):
            await beat.wait()
            updates = [("BTCUSDT", 1.0, world.now)]
            world.note(exchange, updates)
            await world.book.enter(batch_of(exchange, updates))

    async with world.running(aggregating=False):
        await whole(world)
        async with trio.open_nursery() as nursery:
            for exchange in EXCHANGES:
                nursery.start_soon(feed, exchange)
        await until(lambda: world.book.flushes.drained)
        assert len(window.written_at) == 20
        world.check_window()


async def test_it_keeps_in_step_with_the_beat_after_a_batch_between_two_beats(autojump_clock):
    """What enters at a beat waits for less than it would for the next one."""
    world, window = world_of()
    async with world.running(aggregating=False):
        await whole(world)
        began = trio.current_time()
        for at in (0.0, 0.005, 1 * BEAT, 2 * BEAT, 3 * BEAT):
            await trio.sleep_until(began + at)
            world.send_one(1.0)
        await until(lambda: world.book.flushes.drained)
        written = [at - began for at in window.written_at]
        # The second waits for the first beat, and takes along what is read at it.
        assert written == pytest.approx([0.0, BEAT + 0.004, 2 * BEAT, 3 * BEAT])


async def test_updates_that_come_all_the_time_are_written_twice_in_an_interval(autojump_clock):
    """Each of them within the interval: the rest of it is for the write itself."""
    world, window = world_of()
    async with world.running(aggregating=False):
        await whole(world)
        began = trio.current_time()
        for _ in range(1_000):
            world.send_one(1.0)
            await trio.sleep(0.001)
        await until(lambda: world.book.flushes.drained)
        took = trio.current_time() - began
        assert len(window.written_at) <= took / BEAT + 1
        times = [began, *window.written_at]
        assert max(b - a for a, b in pairwise(times)) <= BEAT + LATE


@pytest.mark.parametrize(("updates", "beat"), [(1, BEAT), (1_000, BEAT / 2)], ids=["few", "many"])
async def test_many_updates_of_each_symbol_are_written_at_every_beat_of_the_feeds(
    updates, beat, autojump_clock
):
    """A flush of many costs mostly what its updates cost, so that it may as well be made twice as often."""
    world, window = world_of()
    async with world.running(aggregating=False):
        await whole(world)
        began = trio.current_time()
        for number in range(40):
            await trio.sleep_until(began + number * BEAT / 2)
            entering = [("BTCUSDT", 1.0, world.now)] * updates
            world.note("exchange1", entering)
            await world.book.enter(batch_of("exchange1", entering))
        await until(lambda: world.book.flushes.drained)
        gaps = [after - before for before, after in pairwise(window.written_at)]
        assert gaps[4:-4] == pytest.approx([beat] * len(gaps[4:-4]), abs=LATE)
