from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
from hypercorn.trio.worker_context import EventWrapper

from marketflow.adapters.http.idle import IdleTimer


class Connection:
    """What a timer closes; its tasks end with the block, unless it hangs."""

    def __init__(self):
        self.closed = []
        self.terminated = EventWrapper()
        self.timer = IdleTimer(patience=10.0, terminated=self.terminated, close=self._close)

    async def _close(self):
        self.closed.append(trio.current_time())

    @asynccontextmanager
    async def open(self):
        async with trio.open_nursery() as nursery:
            self.spawn = nursery.start_soon
            self.idle = lambda: self.timer.restart(self, None)
            yield


async def test_it_closes_what_is_idle_for_its_time(autojump_clock):
    connection = Connection()
    async with connection.open():
        await connection.idle()
        await trio.sleep(9)
        await connection.timer.stop()
        await trio.sleep(100)
        await connection.idle()
        idle_since = trio.current_time()
    assert connection.closed == [pytest.approx(idle_since + 10)]


@pytest.mark.parametrize("terminated", [False, True])
async def test_it_ends_with_its_client(autojump_clock, terminated):
    """There is nothing to close then, whether something is being asked or not."""
    connection = Connection()
    start = trio.current_time()
    async with connection.open():
        await connection.idle()
        await connection.timer.stop()
        if terminated:
            await connection.terminated.set()
        await trio.sleep(1)
        connection.timer.end()
    assert connection.closed == []
    assert trio.current_time() - start == pytest.approx(1)


async def test_when_the_server_stops_what_is_asked_is_answered(autojump_clock):
    connection = Connection()
    start = trio.current_time()
    async with connection.open():
        await connection.idle()
        await connection.timer.stop()
        await connection.terminated.set()
        await trio.sleep(3)
        assert connection.closed == []
        await connection.idle()
    assert connection.closed == [pytest.approx(start + 3)]


async def test_what_is_asked_in_the_last_moment_is_answered(autojump_clock):
    """The time is over, and the timer was told so, but has not had its turn yet.

    We wake up in the same moment as the timer, and which of us is the first is chance: so again and again.
    """
    in_time = 0
    for _ in range(40):
        connection = Connection()
        async with connection.open():
            await connection.idle()
            await trio.sleep(10.0)
            if not connection.closed:
                in_time += 1
                await connection.timer.stop()
                await trio.testing.wait_all_tasks_blocked()
                assert connection.closed == []
                await connection.idle()
                await connection.terminated.set()
        assert len(connection.closed) == 1
    assert 0 < in_time < 40
