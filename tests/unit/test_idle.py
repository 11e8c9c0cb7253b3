from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio

from marketflow.adapters.http.idle import IdleTimer


class Connection:
    """A connection that the timer closes; its tasks end with the block, unless it hangs."""

    def __init__(self):
        self.closed = []
        self.stopping = trio.Event()
        self.timer = IdleTimer(patience=10.0, stopping=self.stopping, close=self.close)

    async def close(self):
        self.closed.append(trio.current_time())

    @asynccontextmanager
    async def open(self):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.timer.run)
            yield


async def test_it_closes_what_is_idle_for_its_time(autojump_clock):
    connection = Connection()
    async with connection.open():
        connection.timer.idle()
        await trio.sleep(9)
        connection.timer.busy()
        await trio.sleep(100)
        connection.timer.idle()
        idle_since = trio.current_time()
    assert connection.closed == [pytest.approx(idle_since + 10)]


@pytest.mark.parametrize("stopping", [False, True])
async def test_it_ends_with_its_client(autojump_clock, stopping):
    """Then it closes nothing, idle or busy."""
    connection = Connection()
    start = trio.current_time()
    async with connection.open():
        connection.timer.idle()
        connection.timer.busy()
        if stopping:
            connection.stopping.set()
        await trio.sleep(1)
        connection.timer.end()
    assert connection.closed == []
    assert trio.current_time() - start == pytest.approx(1)


async def test_when_the_server_stops_what_is_asked_is_answered(autojump_clock):
    connection = Connection()
    start = trio.current_time()
    async with connection.open():
        connection.timer.idle()
        connection.timer.busy()
        connection.stopping.set()
        await trio.sleep(3)
        assert connection.closed == []
        connection.timer.idle()
    assert connection.closed == [pytest.approx(start + 3)]


async def test_what_is_asked_at_the_last_moment_is_answered(autojump_clock):
    """The time is over, but the timer's task has not run yet.

    The test and the timer wake up at the same moment, and which runs first is chance: so it tries many times.
    """
    in_time = 0
    for _ in range(40):
        connection = Connection()
        async with connection.open():
            connection.timer.idle()
            await trio.sleep(10.0)
            if not connection.closed:
                in_time += 1
                connection.timer.busy()
                await trio.testing.wait_all_tasks_blocked()
                assert connection.closed == []
                connection.timer.idle()
                connection.stopping.set()
        assert len(connection.closed) == 1
    assert 0 < in_time < 40
