"""`python -m tests.simulation`: run seeds, say what they covered, and show what fails.

```
--seeds 300          so many seeds from --seed on (0)
--seed 17            that one alone: its log and its hash
--minutes 5          stop after so long
--go-on              after a failure, too: exit 1 at the end
--hashes FILE        write the hash of each seed to a file, to compare runs
--mutant NAME        with a planted bug: exit 1 once it is found
--mutants            list them
```
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO, get_args

from marketflow.app.ingest.state import State
from marketflow.app.share.window_lease import LeaseState
from tests.simulation.history import History, run_history, shrunk
from tests.simulation.plan import KINDS, Plan
from tests.simulation.planted import PLANTED
from tests.simulation.regressions import frozen

CHUNK = 5
"""Seeds that a process takes at a time."""
PROGRESS_SECONDS = 5.0


def main() -> int:
    """The exit code: 0 if all seeds are right, 1 if one is not."""
    arguments = _arguments()
    if arguments.mutants:
        print(*[f"{name:<34} {mutant.what}" for name, mutant in PLANTED.items()], sep="\n")
        return 0
    if arguments.seeds is None and arguments.seed is not None:
        return _one(arguments.seed, arguments.mutant)
    with contextlib.ExitStack() as stack:
        hashes = stack.enter_context(arguments.hashes.open("w")) if arguments.hashes else None
        histories = _histories(arguments.seed or 0, arguments.seeds or 300, arguments.mutant)
        return _many(_written(histories, hashes), arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s simulate --", description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, help="how many seeds (300)")
    parser.add_argument(
        "--seed", type=int, help="the first seed; without --seeds that one alone, with its log"
    )
    parser.add_argument("--minutes", type=float, help="stop after so long")
    parser.add_argument("--mutant", choices=list(PLANTED), metavar="NAME", help="plant this bug")
    parser.add_argument("--mutants", action="store_true", help="list the bugs that can be planted")
    parser.add_argument("--go-on", action="store_true", help="go on after a failure; exit 1 at the end")
    parser.add_argument("--hashes", type=Path, metavar="FILE", help="write the hash of each seed to a file")
    return parser.parse_args()


def _one(seed: int, mutant: str | None) -> int:
    plan = Plan.of(seed)
    print(_described(plan), "", sep="\n")
    history = run_history(plan, mutant, told=True)
    print("", *history.log, "", sep="\n")
    if history.failure is None:
        print(f"{history.steps} steps, {history.seconds:.1f} virtual seconds: all is right")
    else:
        print(f"FAILED: {history.failure}")
    print(f"hash {history.digest}")
    return 0 if history.failure is None else 1


def _written(histories: Iterable[History], hashes: TextIO | None) -> Iterator[History]:
    for history in histories:
        if hashes is not None:
            print(history.seed, history.digest, file=hashes, flush=True)
        yield history


def _many(histories: Iterable[History], arguments: argparse.Namespace) -> int:
    began = last = time.monotonic()
    coverage: Counter[str] = Counter()
    count, minutes = arguments.seeds or 300, arguments.minutes
    done, seconds, failed = 0, 0.0, 0
    for history in histories:
        done += 1
        coverage += history.coverage
        seconds += history.seconds
        now = time.monotonic()
        if history.failure is not None:
            print(f"seed {history.seed} failed after {done} seeds: {history.failure}", flush=True)
            failed += 1
            if not arguments.go_on:
                _explain(history.seed, arguments.mutant)
                return 1
        if now - last >= PROGRESS_SECONDS:
            last = now
            print(f"{done} of {count} seeds, {done / (now - began):.1f} a second", flush=True)
        if minutes is not None and now - began > 60 * minutes:
            break
    elapsed = time.monotonic() - began
    print(f"{done - failed} seeds are right: {seconds / 3600:.2f} virtual hours in {elapsed:.0f} s")
    if failed:
        print(f"{failed} seeds FAILED")
    _table(coverage)
    return 1 if failed else 0


def _histories(first: int, count: int, mutant: str | None) -> Iterable[History]:
    tasks = ((seed, mutant) for seed in range(first, first + count))
    with multiprocessing.Pool(os.cpu_count()) as pool:
        yield from pool.imap_unordered(_history, tasks, chunksize=CHUNK)


def _history(task: tuple[int, str | None]) -> History:
    seed, mutant = task
    return run_history(Plan.of(seed), mutant)


def _explain(seed: int, mutant: str | None) -> None:
    plan, history = shrunk(Plan.of(seed), mutant)
    print("\nwith as few faults as it takes:", _described(plan), "", *history.log, sep="\n")
    print(f"{history.failure}\n\nagain, with the service's log: nox -s simulate -- --seed {seed}")
    if mutant is None:
        print("once it is mended, for tests/simulation/regressions.toml:", "", sep="\n")
        print(frozen(plan, f"seed-{seed}", "what it showed", "the planted bug that takes the mend out"))


def _described(plan: Plan) -> str:
    facts = ", ".join(
        f"{name} {getattr(plan, name)}"
        for name in ("seed", "mode", "interval", "grace", "lateness", "window_length", "flush_interval")
    )
    return "\n".join([facts, *(f"  {fault}" for fault in plan.faults or ("no faults",))])


def _table(coverage: Counter[str]) -> None:
    """What was covered, in groups, and what never was."""
    states = [f"state lease {state.value}" for state in LeaseState]
    states += [f"state feed {state}" for state in get_args(State)]
    states += [f"state {store} {state}" for store in ("redis", "postgres") for state in ("up", "away")]
    groups: dict[str, list[str]] = {"faults": list(KINDS), "states": states}
    groups |= {name: [] for name in ("modes", "network", "outcomes", "answers", "other")}
    for name in sorted(coverage):
        if name not in KINDS and name not in states:
            groups[_group(name)].append(name)
    for group, names in groups.items():
        print(group)
        for name in names:
            print(f"  {name:<38} {coverage[name]:>9,}")
    never = [name for name in (*KINDS, *states) if not coverage[name]]
    if never:
        print(f"never: {', '.join(never)}")


def _group(name: str) -> str:
    beginnings = {
        "switched": "modes",
        "redis: ": "network",
        "postgres: ": "network",
        "outcome": "outcomes",
        "answer": "answers",
        "state": "states",
    }
    return next((group for text, group in beginnings.items() if name.startswith(text)), "other")


if __name__ == "__main__":
    sys.exit(main())
