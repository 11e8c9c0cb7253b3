"""`python -m tests.soak`: the plan, the run, the verdict."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence

import trio

from tests.soak.plan import plan
from tests.soak.run import OVERHEAD, soak


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns the exit code: 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--duration", type=float, default=600.0, help="seconds, about (600)")
    parser.add_argument(
        "--rate", type=float, default=20_000.0, help="updates a second of all exchanges (20000)"
    )
    parser.add_argument("--seed", type=int, help="decides the faults and when they come (random)")
    options = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    faults = plan(seed, max(10.0, options.duration - OVERHEAD))
    print(f"soak --duration {options.duration:g} --rate {options.rate:g} --seed {seed}")
    for number, fault in enumerate(faults):
        print(f"{number + 1:4}. {fault}")
    wrong = trio.run(soak, faults, options.rate, seed)
    for problem in wrong:
        print(f"WRONG: {problem}")
    print(f"{len(wrong)} problems; the same faults again: --seed {seed}" if wrong else "All is right.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
