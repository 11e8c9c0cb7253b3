"""`python -m tests.bench`: measure, print the table, write the JSON."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.bench import Bench, Row
from tests.bench.latency import latency
from tests.bench.processes import stolen
from tests.bench.questions import highest, latest
from tests.bench.report import as_json, table
from tests.bench.stage import BenchError, staged
from tests.bench.sustained import sustained

MEASUREMENTS: Mapping[str, Callable[[Bench], list[Row]]] = {
    "sustained": sustained,
    "latency": latency,
    "latest": latest,
    "highest": highest,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    options = _parser().parse_args(arguments)
    rounds = options.rounds or (1 if options.quick else 5)
    duration = options.duration or (2.0 if options.quick else 75.0)
    circumstances = _circumstances()
    stolen_before, all_before = stolen()
    print(_told(circumstances), file=sys.stderr)
    rows: list[Row] = []
    try:
        with staged() as stage:
            bench = Bench(stage, rounds, duration, options.quick)
            for name in options.only:
                bench.doing(name)
                rows += MEASUREMENTS[name](bench)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        stolen_after, all_after = stolen()
        circumstances["steal_during"] = (stolen_after - stolen_before) / max(all_after - all_before, 0.01)
        if options.json:
            options.json.write_text(as_json(rows, circumstances))
        if rows:
            print(table(rows))
    print(f"steal during the run: {circumstances['steal_during']:.1%}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--only", type=_names, default=list(MEASUREMENTS), metavar="NAME,...", help=", ".join(MEASUREMENTS)
    )
    parser.add_argument("--rounds", type=int, help="of each measurement (5)")
    parser.add_argument("--duration", type=float, help="seconds of the sustained flood (75)")
    parser.add_argument("--quick", action="store_true", help="one short round of everything: is it correct?")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="where to write everything, with all rounds"
    )
    return parser


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in MEASUREMENTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(MEASUREMENTS)}")
    return names


def _circumstances() -> dict[str, Any]:
    return {
        "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "load_average": os.getloadavg(),
        "steal_since_boot": stolen()[0] / stolen()[1],
    }


def _told(circumstances: dict[str, Any]) -> str:
    load = ", ".join(f"{each:.2f}" for each in circumstances["load_average"])
    return (
        f"{circumstances['processors']} processors, load average {load}, "
        f"steal since boot {circumstances['steal_since_boot']:.1%}"
    )


if __name__ == "__main__":
    sys.exit(main())
