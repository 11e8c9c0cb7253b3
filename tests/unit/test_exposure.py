from __future__ import annotations

import socket
from functools import partial

import pytest
import trio
from structlog.testing import capture_logs

from marketflow.adapters.http.exposure import EVERY, warn_while_exposed


def listening(host):
    """A listening socket at an address of this machine."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.bind((host, 0))
    except OSError as error:
        listener.close()
        pytest.skip(f"no such address here: {error}")
    return listener


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_a_service_that_others_can_reach_warns_at_once_and_each_day(autojump_clock, host):
    stopping = trio.Event()
    with listening(host) as listener, capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(warn_while_exposed, listener, None, stopping=stopping))
            await trio.sleep(1)
            assert [(each["event"], each["log_level"]) for each in logs] == [
                ("mode switch unguarded", "warning")
            ]
            await trio.sleep(EVERY - 2)
            assert len(logs) == 1
            await trio.sleep(2)
            assert len(logs) == 2
            await trio.sleep(EVERY)
            assert len(logs) == 3
            stopped = trio.current_time()
            stopping.set()
        assert trio.current_time() == pytest.approx(stopped)
    assert len(logs) == 3


@pytest.mark.parametrize(
    ("host", "token"),
    [("127.0.0.1", None), ("127.0.1.1", None), ("::1", None), ("0.0.0.0", "secret")],
)
async def test_otherwise_it_does_not_warn(autojump_clock, host, token):
    with listening(host) as listener, capture_logs() as logs, trio.fail_after(1):
        await warn_while_exposed(listener, token, stopping=trio.Event())
    assert logs == []


async def test_it_can_be_cancelled(autojump_clock):
    with listening("0.0.0.0") as listener, capture_logs(), trio.move_on_after(10) as scope:
        await warn_while_exposed(listener, None, stopping=trio.Event())
    assert scope.cancelled_caught
