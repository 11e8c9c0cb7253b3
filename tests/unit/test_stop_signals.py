"""The first signal starts a stop, the second one leaves at once, and an echo of the first is ignored."""

from __future__ import annotations

import os
import signal

import pytest
import trio
import trio.testing

from marketflow import service
from marketflow.signals import stop_signals


class Left(Exception):
    """Raised here instead of leaving at once."""


@pytest.fixture
def leaving(monkeypatch):
    def leave(code):
        raise Left(code)

    monkeypatch.setattr(service.os, "_exit", leave)


@pytest.mark.parametrize(
    ("first", "second", "after", "left"),
    [
        (signal.SIGTERM, signal.SIGTERM, 0.05, False),
        (signal.SIGINT, signal.SIGINT, 0.05, False),
        (signal.SIGTERM, signal.SIGTERM, 0.2, True),
        (signal.SIGTERM, signal.SIGINT, 0.0, True),
        (signal.SIGHUP, signal.SIGHUP, 0.05, False),
        (signal.SIGHUP, signal.SIGHUP, 5.0, False),
        (signal.SIGTERM, signal.SIGHUP, 0.0, False),
        (signal.SIGINT, signal.SIGHUP, 0.5, False),
        (signal.SIGHUP, signal.SIGTERM, 0.05, False),
        (signal.SIGHUP, signal.SIGTERM, 0.2, True),
    ],
)
async def test_two_signals(autojump_clock, leaving, first, second, after, left):
    """Some senders signal a process and its group, or send SIGHUP with another signal: they mean one stop."""
    stopping = trio.Event()
    outcome = None
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(service.stop_on_signal, stopping)
            os.kill(os.getpid(), first)
            await stopping.wait()
            await trio.sleep(after)
            os.kill(os.getpid(), second)
            await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
    except* Left as errors:
        outcome = errors
    assert (outcome is not None) == left


def test_an_ignored_hangup_stays_ignored():
    """`nohup` ignores it."""
    assert signal.SIGHUP in stop_signals()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert stop_signals() == (signal.SIGINT, signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, before)
