from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from marketflow.adapters.exchange.venues.venue import Rate
from marketflow.adapters.exchange.websocket.limits import RollingWindow
from marketflow.adapters.exchange.websocket.turns import Turns


@given(
    most=st.integers(1, 5),
    seconds=st.integers(1, 10),
    pauses=st.lists(st.integers(0, 12), max_size=40),
)
def test_no_span_has_more_than_the_rate(most, seconds, pauses):
    """Whatever the pauses between the wishes are; and no event waits longer than it has to."""
    window = RollingWindow(Rate(most, float(seconds)))
    now, times = 0.0, []
    for pause in pauses:
        now += pause
        allowed = window.next_at
        if len(times) >= most:
            assert allowed == times[-most] + seconds
        now = max(now, allowed)
        window.note(now)
        times.append(now)
    for start in times:
        assert len([each for each in times if start <= each < start + seconds]) <= most


async def test_turns_are_given_in_order_and_in_time(autojump_clock):
    turns, taken = Turns(Rate(2, 10.0)), []

    async def take(name):
        await turns.turn()
        taken.append((name, trio.current_time() - began))

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for name in "abcde":
            nursery.start_soon(take, name)
            await trio.testing.wait_all_tasks_blocked()
    assert taken == [("a", 0), ("b", 0), ("c", 10), ("d", 10), ("e", 20)]


async def test_a_cancelled_wait_takes_no_turn(autojump_clock):
    turns = Turns(Rate(1, 10.0))
    began = trio.current_time()
    await turns.turn()
    with trio.move_on_after(5) as scope:
        await turns.turn()
    assert scope.cancelled_caught
    await turns.turn()
    assert trio.current_time() - began == pytest.approx(10)
