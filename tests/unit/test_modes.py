from __future__ import annotations

import itertools
import random

import pytest
import trio

from marketflow.app.answers import NothingCanAnswer
from marketflow.app.ingest.modes import Modes


class Sources:
    """Stands for a mode's sources: reports their beginning and end, and takes some time to end."""

    def __init__(self, *, ending=0.5):
        self.ending = ending
        self.running = None
        self.log = []

    async def run(self, mode, leave):
        assert self.running is None, "two modes at once"
        self.running = mode
        self.log.append((trio.current_time(), "begin", mode))
        await leave.wait()
        await trio.sleep(self.ending)
        self.log.append((trio.current_time(), "end", mode))
        self.running = None

    @property
    def modes(self):
        return [mode for _, event, mode in self.log if event == "begin"]


class Running:
    """A running Modes."""

    def __init__(self, mode="live", **options):
        self.sources = Sources(**options)
        self.modes = Modes(mode)
        self.stopping = trio.Event()

    async def run(self):
        await self.modes.run(self.sources.run, self.stopping)


@pytest.fixture
async def running(nursery):
    it = Running()
    nursery.start_soon(it.run)
    await trio.testing.wait_all_tasks_blocked()
    return it


async def test_it_begins_in_the_configured_mode(autojump_clock, running):
    assert running.modes.mode == "live"
    assert running.sources.modes == ["live"]


async def test_a_switch_answers_when_the_old_mode_has_ended(autojump_clock, running):
    """No update of the old mode follows the answer, and none was lost before."""
    assert await running.modes.switch("test")
    assert trio.current_time() == 0.5
    assert running.modes.mode == "test"
    assert ("end", "live") in [(event, mode) for _, event, mode in running.sources.log]
    await trio.testing.wait_all_tasks_blocked()
    assert running.sources.running == "test"


async def test_during_a_switch_it_is_the_mode_that_is_left(autojump_clock, running, nursery):
    nursery.start_soon(running.modes.switch, "test")
    await trio.sleep(0.2)
    assert running.modes.mode == "live"
    await trio.sleep(0.4)
    assert running.modes.mode == "test"


async def test_a_switch_to_the_current_mode_changes_nothing(autojump_clock, running):
    """It takes no time, and no source is interrupted."""
    assert not await running.modes.switch("live")
    assert trio.current_time() == 0
    assert running.sources.modes == ["live"]


async def test_of_several_at_once_each_gets_its_mode_and_one_changed_it(autojump_clock, running):
    results = []

    async def switch(mode):
        results.append((mode, await running.modes.switch(mode), running.modes.mode))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(switch, "test")
    assert sorted(results, key=str) == [("test", False, "test")] * 4 + [("test", True, "test")]
    assert running.sources.modes == ["live", "test"]


async def test_a_storm_of_switches_ends_in_order(autojump_clock, running):
    """Every caller gets an answer, two modes never run together, and the last one stays."""
    rng, answered = random.Random(1), 0

    async def switch(mode, delay):
        nonlocal answered
        await trio.sleep(delay)
        await running.modes.switch(mode)
        answered += 1

    with trio.fail_after(1_000):
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(switch, rng.choice(["live", "test"]), rng.uniform(0, 20))
    assert answered == 200
    modes = running.sources.modes
    assert modes[-1] == running.modes.mode
    assert all(one != other for one, other in itertools.pairwise(modes))
    assert await running.modes.switch("live") == (running.sources.modes[-1] == "live" != modes[-1])


async def test_a_switch_is_carried_through_though_its_caller_is_cancelled(autojump_clock, running):
    """Half a switch would leave no mode."""
    with trio.move_on_after(0.1) as scope:
        await running.modes.switch("test")
    assert scope.cancelled_caught
    await trio.sleep(1)
    assert running.modes.mode == running.sources.running == "test"
    assert await running.modes.switch("live")


async def test_one_that_waits_for_another_and_is_cancelled_switches_nothing(autojump_clock, running, nursery):
    nursery.start_soon(running.modes.switch, "test")
    await trio.testing.wait_all_tasks_blocked()
    with trio.move_on_after(0.1):
        await running.modes.switch("live")
    await trio.sleep(5)
    assert running.sources.modes == ["live", "test"]


async def test_a_stop_during_a_switch(autojump_clock, running, nursery):
    """The old mode ends, the new one does not begin, and the waiting callers get an error."""
    outcome = []

    async def switch():
        try:
            outcome.append(await running.modes.switch("test"))
        except NothingCanAnswer as error:
            outcome.append(type(error))

    nursery.start_soon(switch)
    nursery.start_soon(switch)
    await trio.sleep(0.2)
    running.stopping.set()
    await trio.sleep(1)
    assert outcome == [NothingCanAnswer] * 2
    assert running.sources.running is None
    assert running.sources.modes == ["live"]


async def test_after_the_stop_no_switch_is_promised(autojump_clock, running):
    running.stopping.set()
    await trio.sleep(1)
    for mode in ("live", "test"):
        with pytest.raises(NothingCanAnswer), trio.fail_after(1):
            await running.modes.switch(mode)


async def test_a_stop_waits_until_the_sources_have_ended(autojump_clock):
    running = Running(ending=3.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.run)
        await trio.sleep(1)
        running.stopping.set()
    assert trio.current_time() == 4.0


async def test_a_source_that_fails_takes_the_service_down(autojump_clock):
    """No caller is left waiting for a switch that will never happen."""

    async def fail(mode, leave):
        await trio.sleep(1)
        raise RuntimeError("a bug")

    modes = Modes("live")
    with pytest.RaisesGroup(RuntimeError, flatten_subgroups=True):
        await modes.run(fail, trio.Event())
    with pytest.raises(NothingCanAnswer):
        await modes.switch("test")
