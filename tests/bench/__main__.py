"""`python -m tests.bench`: measure, print the table, write the JSON."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench import versions
from tests.bench.bar_size import bar_size
from tests.bench.bench import Bench
from tests.bench.children import ROOT
from tests.bench.closing import closing
from tests.bench.cluster import cluster
from tests.bench.decoding import decoding
from tests.bench.growth import growth
from tests.bench.history import history
from tests.bench.latency import latency
from tests.bench.little import little
from tests.bench.memory import memory, start
from tests.bench.pairs import pairs
from tests.bench.processes import busy_seconds, stolen_seconds
from tests.bench.questions import highest, latest
from tests.bench.report import Run, from_json, table, to_json, write_docs
from tests.bench.rows import Row
from tests.bench.sharding import sharding
from tests.bench.stage import BenchError, staged
from tests.bench.stream import stream
from tests.bench.sustained import sustained
from tests.bench.venues import venues

MEASUREMENTS: Mapping[str, Callable[[Bench], list[Row]]] = {
    "sustained": sustained,
    "latency": latency,
    "little": little,
    "latest": latest,
    "highest": highest,
    "closing": closing,
    "stream": stream,
    "growth": growth,
    "memory": memory,
    "start": start,
    "bar_size": bar_size,
    "history": history,
    "pairs": pairs,
    "decoding": decoding,
    "sharding": sharding,
    "venues": venues,
    "cluster": cluster,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or write earlier results to the docs; returns 1 if a measurement failed."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.json and not options.json.parent.is_dir():
        parser.error(f"there is no directory {options.json.parent}")
    if options.write_docs:
        write_docs(options.docs, [from_json(path.read_text()) for path in options.write_docs])
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end in order on SIGTERM, too
    circumstances, failed = _circumstances(), 0
    began, stolen, busy = time.monotonic(), stolen_seconds(), busy_seconds()
    rows: list[Row] = []
    try:
        with staged() as stage:
            bench = Bench(
                stage,
                rounds=options.rounds or (1 if options.quick else 5),
                duration=options.duration or (2.0 if options.quick else 75.0),
                quick=options.quick,
            )
            for name in options.only:
                bench.doing(name)
                try:
                    rows += MEASUREMENTS[name](bench)
                except (BenchError, OSError, subprocess.SubprocessError) as error:
                    bench.say(f"NOT MEASURED: {error}")
                    failed = 1
                circumstances["stores"] = stage.versions
    except KeyboardInterrupt:  # Keep the measurements so far.
        failed = 130
    finally:
        took = time.monotonic() - began
        circumstances["stolen_cores"] = (stolen_seconds() - stolen) / took
        circumstances["others_cores"] = (busy_seconds() - busy - sum(os.times()[:4])) / took
        run = Run(circumstances, rows)
        if options.json:
            options.json.write_text(to_json(run))
        if rows:
            print(f"\n{run.text}\n\n{table(rows)}")
    return failed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    add = parser.add_argument
    add("--only", type=_names, default=list(MEASUREMENTS), metavar="NAME,...", help=", ".join(MEASUREMENTS))
    add("--rounds", type=int, help="of each measurement (5)")
    add("--duration", type=float, help="seconds of the sustained measurements (75)")
    add("--quick", action="store_true", help="one short round of everything: is it correct?")
    add("--json", type=Path, metavar="FILE", help="where to write everything, all rounds included")
    add(
        "--write-docs",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="measure nothing, but write the tables of earlier runs, by their JSON, to docs/performance.md",
    )
    add("--docs", type=Path, default=ROOT / "docs" / "performance.md", help=argparse.SUPPRESS)
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
        "python": versions.python(),
        "processors": os.cpu_count(),
        "load_average": os.getloadavg(),
    }


if __name__ == "__main__":
    sys.exit(main())
