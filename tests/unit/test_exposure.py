from __future__ import annotations

import socket

import pytest
import trio
import trio.lowlevel
from structlog.testing import capture_logs

from marketflow.adapters.http.exposure import EVERY, warn_while_exposed


@pytest.fixture
def warned(autojump_clock):
    """Runs it for some seconds at an address; returns when it warned."""

    async def run(host, seconds, token=None):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        stopping = trio.Event()
        began = trio.current_time()
        times = []

        def told(*_):
            times.append(trio.current_time() - began)

        with socket.socket(family) as listener, capture_logs() as logs:
            try:
                listener.bind((host, 0))
            except OSError as error:
                pytest.skip(f"no such address here: {error}")
            async with trio.open_nursery() as nursery:

                async def watch():
                    while True:
                        while len(times) < len(logs):
                            told()
                        await trio.sleep(60)

                nursery.start_soon(watch)
                await trio.lowlevel.checkpoint()
                with trio.move_on_after(seconds):
                    await warn_while_exposed(listener, token, stopping=stopping)
                nursery.cancel_scope.cancel()
        assert {(each["event"], each["log_level"]) for each in logs} <= {("mode switch unguarded", "warning")}
        return times

    return run


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_a_service_that_others_can_reach_warns_each_day(warned, host):
    assert await warned(host, 3 * EVERY + 120) == pytest.approx([0, EVERY, 2 * EVERY, 3 * EVERY], abs=61)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.1.1", "::1"])
async def test_one_that_nobody_else_can_reach_does_not(warned, host):
    assert await warned(host, 3 * EVERY) == []


async def test_nor_does_one_with_a_token(warned):
    assert await warned("0.0.0.0", 3 * EVERY, token="secret") == []  # noqa: S106


async def test_it_ends_with_the_stop(autojump_clock):
    stopping = trio.Event()
    with socket.socket() as listener, capture_logs() as logs:
        listener.bind(("0.0.0.0", 0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: warn_while_exposed(listener, None, stopping=stopping))
            await trio.sleep(10)
            began = trio.current_time()
            stopping.set()
        assert trio.current_time() == began
    assert len(logs) == 1
