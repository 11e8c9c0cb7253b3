"""The results of a run: as a table for people, as JSON for programs, and in docs/performance.md."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from tests.bench.rows import Row

HEAD = ("what", "goal", "limit", "ours: median (min .. max)", "ratio", "met")
BEGIN = "<!-- bench: the table, by `nox -s bench -- --write-docs FILE` -->"
END = "<!-- bench: end -->"


@attrs.frozen
class Run:
    """The circumstances of a run, and its rows."""

    circumstances: dict[str, Any]
    rows: Sequence[Row]

    @property
    def text(self) -> str:
        """The circumstances, for people."""
        python = str(self.circumstances["python"])
        # Reports of an earlier bench have only the version, and no stores.
        python = f"Python {python}" if python[0].isdigit() else python
        stores = "".join(f"{each}, " for each in (self.circumstances.get("stores"),) if each)
        load = ", ".join(f"{each:.2f}" for each in self.circumstances["load_average"])
        return (
            f"{self.circumstances['at']}, {python}, {stores}"
            f"{self.circumstances['processors']} processors, of which others "
            f"used {self.circumstances['others_cores']:.2f} and other guests "
            f"{self.circumstances['stolen_cores']:.2f} meanwhile; load average before {load}"
        )


def table(rows: Sequence[Row]) -> str:
    """A Markdown table, aligned so that it reads well on a terminal too."""
    lines = [HEAD, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)


def _cells(row: Row) -> tuple[str, ...]:
    spread = f" ({_number(min(row.rounds))} .. {_number(max(row.rounds))})" if len(row.rounds) > 1 else ""
    return (
        row.what,
        row.goal,
        "" if row.limit is None else f"{_number(row.limit)} {row.unit}: {row.limit_is}",
        f"{_number(row.median)} {row.unit}{spread}",
        "" if row.ratio is None else f"{row.ratio:.2f}",
        {None: "", True: "yes", False: "**no**"}[row.met],
    )


def _number(value: float) -> str:
    """Three significant digits."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def to_json(run: Run) -> str:
    """Everything, the raw rounds included."""
    rows = [
        attrs.asdict(row) | {"median": row.median, "ratio": row.ratio, "met": row.met} for row in run.rows
    ]
    return json.dumps({"circumstances": run.circumstances, "rows": rows}, indent=1)


def from_json(text: str) -> Run:
    """A run that was written before."""
    found = json.loads(text)
    names = [field.name for field in attrs.fields(Row)]
    rows = [Row(**{name: row[name] for name in names}) for row in found["rows"]]
    return Run(found["circumstances"], rows)


def write_docs(path: Path, runs: Sequence[Run]) -> None:
    """Replace the text between the marks by the tables of these runs.

    Raises:
        ValueError: the marks are not there.
    """
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no {BEGIN} or no {END}")
    tables = "\n\n".join(f"{run.text}:\n\n{table(run.rows)}" for run in runs)
    path.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}")
