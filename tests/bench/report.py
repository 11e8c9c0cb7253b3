"""What a run has found: as a table for people, as JSON for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from tests.bench.bench import Row

HEAD = ("what", "goal", "limit", "ours: median (min .. max)", "ratio", "met")


def table(rows: Sequence[Row]) -> str:
    """A Markdown table, aligned so that it reads well on a terminal too."""
    lines = [HEAD, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)


def _cells(row: Row) -> tuple[str, ...]:
    spread = f" ({_number(min(row.ours))} .. {_number(max(row.ours))})" if len(row.ours) > 1 else ""
    return (
        row.what,
        row.goal,
        "" if row.limit is None else f"{_number(row.limit)} {row.unit}: {row.limit_is}",
        f"{_number(row.median)} {row.unit}{spread}",
        "" if row.ratio is None else f"{row.ratio:.2f}",
        {None: "", True: "yes", False: "NO"}[row.met],
    )


def _number(value: float) -> str:
    """Three digits that count."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def as_json(rows: Sequence[Row], circumstances: dict[str, Any]) -> str:
    """Everything, the raw rounds included."""
    found = [
        {
            "name": row.name,
            "what": row.what,
            "goal": row.goal,
            "unit": row.unit,
            "rounds": list(row.ours),
            "median": row.median,
            "limit": row.limit,
            "limit_is": row.limit_is,
            "ratio": row.ratio,
            "met": row.met,
            "raw": row.raw,
        }
        for row in rows
    ]
    return json.dumps({"circumstances": circumstances, "rows": found}, indent=1)
