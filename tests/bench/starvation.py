"""Measures how long processes were ready to run but had no processor.

Tests with limits in milliseconds leave this time out. It is the sum of two parts. The kernel counts how long
each thread waited for a processor (its run delay). And a thread of ours sleeps for a few milliseconds
repeatedly: if it wakes up later, the whole machine may have stood still, which no counter shows.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

NOTE_EVERY = 0.005
"""In seconds."""
LONGEST_WAIT = 5.0
"""In seconds."""
OURSELVES = "thread-self"
"""Used instead of a process's number for the calling thread."""


def run_delay(pid: int | str) -> float:
    """Seconds for which a process's main thread had no processor; 0 if the system does not count it."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return _counters(Path(f"/proc/{pid}"))[1]
    return 0.0


def _counters(thread: Path) -> tuple[int, float]:
    """Nanoseconds that it ran, and seconds that it waited. A wait is counted when it has ended."""
    ran, waited, _ = (thread / "schedstat").read_text().split()
    return int(ran), int(waited) / 1e9


def _is_ready(thread: Path) -> bool:
    return (thread / "stat").read_text().rpartition(") ")[2].startswith("R")


class Starvation:
    """The starvation of these processes and of our main thread between any two moments (seconds, monotonic).

    Time counts if any of them waited, since each of them waits for the others' work. This overestimates
    rather than underestimates.
    """

    def __init__(self, pids: Callable[[], Sequence[int]]) -> None:
        """`pids` returns the current processes."""
        self._pids = pids
        self._noted = 0.0
        """The time of the last sample."""
        self._counters: dict[Path, tuple[int, float]] = {}
        """Of each thread, at that time."""
        self._begins: list[float] = []
        self._ends: list[float] = []
        """The waits in the order of their ends, or of the time when they were last seen."""

    def note(self) -> None:
        """Read the clock and the counters."""
        now = time.monotonic()
        passed = now - self._noted if self._noted else 0.0
        for thread in self._threads():
            with suppress(FileNotFoundError, ProcessLookupError):  # It has ended.
                self._add(now, self._waited(thread, passed))
        ours = self._waited(Path("/proc/thread-self"), 0.0)
        self._add(now, passed - ours - 2 * NOTE_EVERY)  # the whole machine has stood still
        self._noted = now

    def _threads(self) -> Iterator[Path]:
        for pid in self._pids():
            with suppress(FileNotFoundError, ProcessLookupError):
                yield from Path(f"/proc/{pid}/task").iterdir()
        yield Path(f"/proc/{os.getpid()}")

    def _waited(self, thread: Path, passed: float) -> float:
        """How long it has waited since the last sample, or longer if a longer wait has ended."""
        counters = _counters(thread)
        before = self._counters.get(thread, counters)
        self._counters[thread] = counters
        if counters == before and passed and _is_ready(thread):
            return passed
        return counters[1] - before[1]

    def _add(self, now: float, waited: float) -> None:
        if waited > 0:
            self._begins.append(now - waited)
            self._ends.append(now)

    def between(self, start: float, end: float) -> float:
        """The seconds between two moments. Call it a while after `end`: waits are counted when they end."""
        total, reached = 0.0, start
        first = bisect_left(self._ends, start)
        last = bisect_left(self._ends, end + LONGEST_WAIT)
        for begin, until in sorted(zip(self._begins[first:last], self._ends[first:last], strict=True)):
            total += max(0.0, min(until, end) - max(begin, reached))
            reached = max(reached, until)
        return total


@contextmanager
def noted(pids: Callable[[], Sequence[int]]) -> Iterator[Starvation]:
    """Take a sample every few ms until the end of the block."""
    starvation, ending = Starvation(pids), threading.Event()

    def note() -> None:
        starvation.note()
        while not ending.wait(NOTE_EVERY):
            starvation.note()
        starvation.note()

    noting = threading.Thread(target=note)
    noting.start()
    try:
        yield starvation
    finally:
        ending.set()
        noting.join()
