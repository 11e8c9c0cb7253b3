"""`python -m tests.cluster`: many faults, one after the other, and a table of what they have cost."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import trio

from tests.cluster.stage import Stage, stage
from tests.cluster.trials import DIRECTIONS, LINKS, Cost, cut, freeze, kill
from tests.servers import TcpPostgres, TcpRedis

Trial = Callable[[Stage, str], Awaitable[list[Cost]]]
ROUND = 5
"""Trials on one stage. Then all is checked once more, and the next ones begin with empty stores."""


def trials(only: str | None, times: int) -> Iterator[tuple[str, Trial]]:
    """The faults, each with its name."""
    for name, trial in (("kill", kill), ("stop", freeze)):
        if only in {None, name}:
            yield from [(name, trial)] * times
    if only in {None, "cut"}:
        for stores in LINKS:
            for direction in DIRECTIONS:
                words = f"cut from {' and '.join(stores)}: {direction}"
                yield words, partial(cut, stores=stores, direction=direction)


async def run(only: str | None, times: int) -> dict[str, list[Cost]]:
    """Run them; returns the costs by the name of the fault."""
    found: defaultdict[str, list[Cost]] = defaultdict(list)
    left = list(trials(only, times))
    number = 0
    while left:
        now, left = left[:ROUND], left[ROUND:]
        with tempfile.TemporaryDirectory(prefix="marketflow-cluster-") as name:
            directory = Path(name)
            directory.chmod(0o755)  # noqa: ASYNC240 - at once; the stores run as another user when we are root
            with (
                TcpRedis(directory / "redis") as redis,
                TcpPostgres(directory / "postgres", durable=False) as postgres,
            ):
                async with stage(redis, postgres, directory) as it:
                    for fault, trial in now:
                        began = time.monotonic()
                        victim = ("one", "two")[number % 2]
                        number += 1
                        costs = await trial(it, victim)
                        found[fault] += costs
                        shown = ", ".join(_shown(cost) for cost in costs)
                        print(f"{number:4}. {fault}: {shown} ({time.monotonic() - began:.0f} s)", flush=True)
                    await it.check_end()
    return found


def _shown(cost: Cost) -> str:
    return f"{cost.seconds:.1f} s, {cost.missing} missing" if cost.moved else f"kept, {cost.missing} missing"


def table(found: dict[str, list[Cost]]) -> str:
    """A line for each kind of fault."""
    head = f"{'fault':<42}{'moved':>8}{'min s':>8}{'median':>8}{'max s':>8}{'missing':>9}{'before s':>10}"
    lines = [head]
    for fault, costs in found.items():
        moved = [cost.seconds for cost in costs if cost.moved]
        times = (min(moved), statistics.median(moved), max(moved)) if moved else ()
        told = "".join(f"{seconds:>8.2f}" for seconds in times) or f"{'-':>8}" * 3
        missing = max(cost.missing for cost in costs)
        before = max(cost.unsaved for cost in costs)
        lines.append(f"{fault:<42}{f'{len(moved)}/{len(costs)}':>8}{told}{missing:>9}{before:>10.2f}")
    return "\n".join(lines)


def main() -> int:
    """The exit code: 0 if all is right. What is not right raises."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--only", choices=["kill", "stop", "cut"], help="one kind of fault")
    parser.add_argument("--times", type=int, default=20, help="kills, and stops (20)")
    options = parser.parse_args()
    found = trio.run(run, options.only, options.times)
    print(
        f"\nBy fault and exchange; missing: the most updates of an exchange, at 40 a second\n\n{table(found)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
