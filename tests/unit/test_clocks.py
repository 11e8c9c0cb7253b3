from __future__ import annotations

import time

import pytest
import trio
from builders import NOON, WallClock
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from marketflow.app.instruments.clocks import DOUBT, Beat, CautiousClock, DataClock, SystemClock, next_beat
from marketflow.domain.periods import DAY, HOUR, MINUTE


async def test_the_system_clock_tells_unix_milliseconds():
    assert abs(SystemClock().now() - time.time() * 1_000) < 1_000


@given(st.floats(0, 1e9), st.floats(0.001, 10))
def test_beats_are_the_same_for_all_and_never_the_same_twice(now, interval):
    beat = next_beat(now, interval)
    assert now < beat <= now + 1.011 * interval
    assert round(beat / interval) * interval == beat
    following = next_beat(beat, interval)
    assert 0.9 * interval < following - beat < 1.1 * interval


async def test_all_who_wait_for_a_beat_wake_up_at_it(autojump_clock):
    beat = Beat(0.25)
    woken = []

    async def wait(start):
        await trio.sleep(start)
        await beat.wait()
        woken.append((start, trio.current_time()))

    begin = trio.current_time() // 0.25 * 0.25 + 0.25
    await trio.sleep_until(begin)
    async with trio.open_nursery() as nursery:
        for start in (0.01, 0.1, 0.2, 0.3, 0.3):
            nursery.start_soon(wait, start)
    assert woken == [(start, begin + (0.25 if start < 0.25 else 0.5)) for start, _ in woken]
    assert len(woken) == 5


class Turns(trio.abc.Instrument):
    """Counts the turns of the event loop."""

    def __init__(self) -> None:
        self.count = 0

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - Trio passes it
        self.count += 1


async def test_all_who_wait_for_a_beat_go_on_in_the_same_turn(autojump_clock):
    """What they receive is then written together."""
    beat, turns, woken = Beat(0.25), Turns(), []

    async def wait():
        await beat.wait()
        woken.append(turns.count)

    trio.lowlevel.add_instrument(turns)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(wait)
    assert woken == [woken[0]] * 3


async def test_whoever_sleeps_for_the_others_may_be_cancelled(autojump_clock):
    """The others get their beat early, and wait for the next one as usual."""
    beat = Beat(0.25)
    woken = []
    begin = trio.current_time() // 0.25 * 0.25 + 0.25
    await trio.sleep_until(begin)

    async def wait_twice():
        await trio.sleep(0.05)
        for _ in range(2):
            await beat.wait()
            woken.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_twice)
        with trio.move_on_after(0.1):
            await beat.wait()
    assert woken == [begin + 0.1, begin + 0.25]


async def watch(clock, seconds):
    """Read the clock each second, as the flusher does more often."""
    for _ in range(round(seconds)):
        await trio.sleep(1)
        clock.now()


async def test_in_step_with_a_steady_clock(autojump_clock):
    clock = CautiousClock(WallClock())
    for second in range(200):
        assert abs(clock.now() - (NOON + second * 1_000)) <= 1
        await trio.sleep(1)


async def test_a_step_ahead_counts_once_it_has_lasted(autojump_clock):
    """It is ignored for a minute, then accepted."""
    wall = WallClock()
    clock = CautiousClock(wall)
    await watch(clock, 10)
    wall.offset = DAY
    for second in range(DOUBT // 1_000 - 1):
        assert abs(clock.now() - (NOON + (10 + second) * 1_000)) <= 1
        await trio.sleep(1)
    await watch(clock, 3)
    assert abs(clock.now() - wall.now()) <= 1


async def test_a_step_ahead_that_is_set_right_never_counted(autojump_clock):
    wall = WallClock()
    clock = CautiousClock(wall)
    await watch(clock, 5)
    for _ in range(20):
        wall.offset = DAY
        await watch(clock, 10)
        wall.offset = 0
        await watch(clock, 2)
        assert abs(clock.now() - wall.now()) <= 1
        assert wall.offset == 0


async def test_a_step_back_counts_at_once(autojump_clock):
    """It only keeps data longer."""
    wall = WallClock()
    clock = CautiousClock(wall)
    await watch(clock, 5)
    wall.offset = -DAY
    assert abs(clock.now() - wall.now()) <= 1
    await watch(clock, 200)
    assert abs(clock.now() - wall.now()) <= 1


async def test_it_is_never_ahead_of_the_wall_clock(autojump_clock):
    """This holds with slow drift in both directions, and with steps."""
    wall = WallClock()
    clock = CautiousClock(wall)
    for step in [5, -7, 400, -900, 30_000, -50_000, 2, 2, 2, 3_600_000, 0, -3_600_000] * 20:
        wall.offset += step
        await trio.sleep(3)
        assert clock.now() <= wall.now()


async def test_steps_of_more_than_a_second_are_logged_once(autojump_clock):
    wall = WallClock()
    clock = CautiousClock(wall)
    with capture_logs() as logs:
        for offset in (0, 900, 100, 5_000, 5_000, -60_000):
            wall.offset = offset
            await watch(clock, 2)
    told = [(each["event"], each["seconds"]) for each in logs]
    assert told == [("wall clock stepped", 4.9), ("wall clock stepped", -65.0)]


async def test_the_time_of_doubt_can_be_longer(autojump_clock):
    """With a window of ten minutes a step must have lasted for ten minutes."""
    wall = WallClock()
    clock = CautiousClock(wall, doubt=10 * MINUTE)
    await watch(clock, 5)
    wall.offset = DAY
    await watch(clock, 10 * 60 - 10)
    assert abs(clock.now() - (wall.now() - DAY)) <= 1
    await watch(clock, 15)
    assert abs(clock.now() - wall.now()) <= 1


# ---- the clock of the data ----


def data_clock_of(wall, newest, **options):
    return DataClock(CautiousClock(wall), newest, **options)


async def test_without_data_nothing_is_old(autojump_clock):
    wall = WallClock()
    clock = data_clock_of(wall, {})
    await watch(clock, 100)
    assert clock.now() == 0


@pytest.mark.parametrize("before", [0, 200])
async def test_a_clock_ahead_of_the_data_is_never_believed(autojump_clock, before):
    """This holds for a step while the service runs and for a wrong clock from the start; time goes on."""
    wall, newest = WallClock(), {"exchange1": NOON}
    clock = data_clock_of(wall, newest)
    assert clock.now() == NOON
    await watch(clock, before)
    wall.offset = 3 * DAY
    await watch(clock, 5 * 60)
    assert abs(clock.now() - (wall.now() - 3 * DAY)) <= 2


async def test_a_clock_behind_the_data_is_believed(autojump_clock):
    wall = WallClock()
    clock = data_clock_of(wall, {"exchange1": NOON})
    wall.offset = -DAY
    assert abs(clock.now() - wall.now()) <= 1


async def test_the_newest_data_of_all_exchanges_counts(autojump_clock):
    """Data of a silent exchange ages with the others; one that is behind delays nothing."""
    wall, newest = WallClock(), {"exchange1": NOON - 3 * DAY, "exchange2": NOON - HOUR}
    clock = data_clock_of(wall, newest)
    assert clock.now() == NOON - HOUR
    await watch(clock, 60)
    newest["exchange3"] = wall.now() - 500
    assert abs(clock.now() - (wall.now() - 500)) <= 1
    await watch(clock, 60)
    assert abs(clock.now() - (wall.now() - 500)) <= 2


async def test_stored_data_counts_as_well(autojump_clock):
    clock = data_clock_of(WallClock(), {"exchange1": NOON - DAY})
    clock.see("exchange1", NOON - HOUR)
    clock.see("exchange1", NOON - 2 * HOUR)
    assert clock.now() == NOON - HOUR


async def test_a_generator_does_not_vouch_for_the_clock_that_it_uses(autojump_clock):
    """Its data counts only if there is no other."""
    wall, newest = WallClock(), {"test1": NOON}
    clock = data_clock_of(wall, newest, generated=["test1"])
    assert clock.now() == NOON
    newest["exchange1"] = NOON - MINUTE
    assert clock.now() == NOON - MINUTE
    wall.offset = 3 * DAY
    for _ in range(100):
        await trio.sleep(1)
        newest["test1"] = wall.now()
        clock.now()
    assert abs(clock.now() - (NOON + 40_000)) <= 2
