from __future__ import annotations

import trio

from marketflow.app.instruments.seldom import Seldom


async def test_one_line_in_so_many_seconds_and_the_others_are_counted(autojump_clock):
    seldom = Seldom(60.0)
    assert [seldom.turn() for _ in range(4)] == [0, None, None, None]
    await trio.sleep(59.9)
    assert seldom.turn() is None
    await trio.sleep(0.1)
    assert seldom.turn() == 4
    await trio.sleep(60)
    assert seldom.turn() == 0


async def test_several_events_may_have_one_line(autojump_clock):
    seldom = Seldom(60.0)
    assert [seldom.turn(events) for events in (3, 1, 5)] == [2, None, None]
    await trio.sleep(60)
    assert seldom.turn(2) == 7
