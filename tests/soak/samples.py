"""The service's use of resources, second by second, and whether it grows."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from pathlib import Path

import attrs

MB = 1_000_000
RSS_LIMIT = 400 * MB
"""With default settings, replay memory included."""
FEWEST = 8
"""The number of samples that a comparison of quarters needs."""


@attrs.frozen
class Sample:
    """One look."""

    run: int
    """The number of the service's start."""
    calm: bool
    """Whether there was no fault, now or a moment ago."""
    rss: int
    threads: int
    files: int
    redis: int
    """Redis' memory in bytes."""


@attrs.frozen
class Kind:
    """The allowed growth from the first to the last quarter: a fraction and an amount."""

    name: str
    field: str
    unit: float
    part: float
    amount: float


KINDS = (
    Kind("RSS (MB)", "rss", MB, 0.25, 40 * MB),
    Kind("threads", "threads", 1, 0, 3),
    Kind("file descriptors", "files", 1, 0, 20),
    Kind("Redis memory (MB)", "redis", MB, 0.25, 20 * MB),
)


def look(pid: int) -> tuple[int, int, int]:
    """Memory (bytes), threads and file descriptors of a process."""
    status = dict(
        re.findall(r"^(VmRSS|Threads):\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    )
    return int(status["VmRSS"]) * 1024, int(status["Threads"]), len(list(Path(f"/proc/{pid}/fd").iterdir()))


def compared(samples: Sequence[Sample]) -> tuple[str, list[str]]:
    """A table, and the resources that have grown too much.

    It compares the first and last quarter of the undisturbed samples of the last start.
    """
    last = max((each.run for each in samples), default=0)
    calm = [each for each in samples if each.run == last and each.calm]
    lines = [
        f"{'':18} {'first':>8} {'last':>8} {'at most':>8} {'bound':>8}   ({len(calm)} undisturbed samples)"
    ]
    grown = []
    quarter = max(1, len(calm) // 4)
    if len(calm) < FEWEST:
        return lines[0], [f"only {len(calm)} undisturbed samples: run for longer"]
    for kind in KINDS:
        values = [getattr(each, kind.field) for each in calm]
        first, end = statistics.median(values[:quarter]), statistics.median(values[-quarter:])
        bound = first * (1 + kind.part) + kind.amount
        most = max(getattr(each, kind.field) for each in samples)
        told = (f"{value / kind.unit:8,.0f}" for value in (first, end, most, bound))
        lines.append(f"{kind.name:18} {' '.join(told)}")
        if end > bound:
            grown.append(f"{kind.name} has grown from {first / kind.unit:,.0f} to {end / kind.unit:,.0f}")
    return "\n".join(lines), grown
