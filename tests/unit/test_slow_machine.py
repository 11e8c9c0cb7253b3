"""The clock for limits counts waits and a blocked event loop, and no stalls."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio
from slow_machine import pulse, within

STOPPED = 2.0
"""In seconds."""
WAITS = f"""
from slow_machine import within
with within({STOPPED}):
    print("begun", flush=True)
    input()
"""


def wait():
    """Wait for a second, in steps: if the machine stands still, no step but one gets longer."""
    for _ in range(100):
        time.sleep(0.01)


def test_a_wait_that_is_too_long_is_detected():
    with pytest.raises(AssertionError, match="not less than"), within(0.2):
        wait()


def test_a_process_that_is_stopped_uses_up_no_time():
    path = str(Path(__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", WAITS], cwd=path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "begun\n"
        child.send_signal(signal.SIGSTOP)
        time.sleep(STOPPED)
        child.send_signal(signal.SIGCONT)
        child.communicate("\n")
    assert child.returncode == 0


async def test_a_blocked_event_loop_is_detected():
    async with pulse() as event_loop:
        await trio.sleep(0.1)
        wait()
        await trio.sleep(0.1)
    assert event_loop.longest > 0.3
