"""A seed is a history: run again it is the same, in another process and under another hash seed too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.simulation.history import run_history
from tests.simulation.plan import Plan
from tests.simulation.scheduling import Livelock, run

ROOT = Path(__file__).parents[2]
SEEDS = range(6)

HASHES = """
import sys
from tests.simulation.history import run_history
from tests.simulation.plan import Plan
print(*[run_history(Plan.of(int(seed))).digest for seed in sys.argv[1:]])
"""


def hashes(hash_seed, seeds):
    """Of these seeds, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", HASHES, *map(str, seeds)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout.split()


def test_a_seed_repeats_itself_in_other_processes():
    first = hashes(1, SEEDS)
    # In another order: nothing is left over from one history to the next.
    second = hashes(2, reversed(SEEDS))
    assert first == second[::-1]
    assert len(set(first)) == len(SEEDS)


def test_a_history_is_the_same_whether_its_log_is_shown(capsys):
    plan = Plan.of(1)
    assert run_history(plan).digest == run_history(plan, told=True).digest


async def _race(order):
    async def note(name):
        for _ in range(3):
            order.append(name)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for name in "abcd":
            nursery.start_soon(note, name)


def raced(seed):
    order = []
    run(lambda _: _race(order), seed)
    return "".join(order)


def test_the_seed_decides_the_order_of_tasks():
    """If this fails, a release of Trio has changed how its scheduler draws: see scheduling.py."""
    assert [raced(seed) for seed in range(10)] == [raced(seed) for seed in range(10)]
    assert len({raced(seed) for seed in range(10)}) > 5


def test_a_loop_that_never_waits_is_found():
    async def main(_):
        while True:
            await trio.lowlevel.checkpoint()

    with pytest.raises(Livelock):
        run(main, 0)


def test_a_failed_check_ends_the_run():
    async def main(steps):
        def check():
            raise AssertionError("planted")

        steps.after_each = check
        await trio.sleep(1)

    with pytest.raises(AssertionError, match="planted"):
        run(main, 0)
