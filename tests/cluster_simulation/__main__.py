"""`python -m tests.cluster_simulation --seed S --seeds N [--go-on]`: run seeds of several nodes."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter

from tests.cluster_simulation.history import run_history
from tests.cluster_simulation.plan import Plan
from tests.simulation.history import History

PROGRESS = 20
"""Seeds after which a line tells how far it is."""


def main() -> int:
    """The exit code: 0 if all seeds are right, 1 if one is not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--seeds", type=int, help="how many; without it that one alone, with its log")
    parser.add_argument("--go-on", action="store_true", help="go on after a failure; exit 1 at the end")
    arguments = parser.parse_args()
    if arguments.seeds is None:
        return _one(arguments.seed)
    began, failed, coverage = time.monotonic(), 0, Counter[str]()
    seeds = range(arguments.seed, arguments.seed + arguments.seeds)
    with multiprocessing.Pool(os.cpu_count()) as pool:
        for done, history in enumerate(pool.imap_unordered(_history, seeds, chunksize=2), 1):
            coverage += history.coverage
            if done % PROGRESS == 0:
                print(f"{done} of {len(seeds)} seeds, {time.monotonic() - began:.0f} s", flush=True)
            if history.failure is not None:
                failed += 1
                print(f"seed {history.seed} failed: {history.failure}", flush=True)
                if not arguments.go_on:
                    return 1
    print(f"{len(seeds) - failed} of {len(seeds)} seeds are right, {time.monotonic() - began:.0f} s")
    print(*(f"  {name:<38} {number:>9,}" for name, number in sorted(coverage.items())), sep="\n")
    return 1 if failed else 0


def _one(seed: int) -> int:
    plan = Plan.of(seed)
    print(plan, *plan.faults, "", sep="\n")
    history = run_history(plan, told=True)
    print("", *history.log, "", sep="\n")
    print(f"{history.steps} steps, {history.seconds:.1f} virtual seconds, hash {history.digest}")
    print("all is right" if history.failure is None else f"FAILED: {history.failure}")
    return 0 if history.failure is None else 1


def _history(seed: int) -> History:
    return run_history(Plan.of(seed))


if __name__ == "__main__":
    sys.exit(main())
