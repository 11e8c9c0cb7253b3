"""The measured starvation, which tests subtract, is neither too small nor too large."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bench.starvation import noted

if not Path("/proc/self/schedstat").exists():
    pytest.skip("this kernel counts no run delays", allow_module_level=True)

SPIN = "import os; os.sched_setaffinity(0, {0})\nwhile True: pass"


@pytest.mark.alone
def test_a_process_that_shares_its_processor_is_starved() -> None:
    """Of three that want one processor, each is ready and waits for two thirds of the time."""
    children = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(3)]
    try:
        time.sleep(0.5)
        with noted(lambda: [children[0].pid]) as starvation:
            began = time.monotonic()
            time.sleep(1.0)
            ended = time.monotonic()
    finally:
        for each in children:
            each.kill()
            each.wait()
    assert 0.5 < starvation.between(began, ended) / (ended - began) <= 1.0001


@pytest.mark.alone
def test_a_process_that_sleeps_is_not() -> None:
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child,
        noted(lambda: [child.pid]) as starvation,
    ):
        time.sleep(0.5)
        began = time.monotonic()
        time.sleep(1.0)
        ended = time.monotonic()
        child.kill()
    assert starvation.between(began, ended) < 0.3 * (ended - began)
