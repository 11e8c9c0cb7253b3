"""How long processes were ready to run and did not: what a promise in milliseconds cannot be blamed for.

Two things are added up. The kernel counts how long each thread waited for a processor (its run delay). And a
thread of our own sleeps for a few milliseconds again and again: if it wakes up later than that, the whole
machine may have stood still, which no counter shows.
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
"""Seconds."""
LONGEST_WAIT = 5.0
"""Seconds."""
OURSELVES = "thread-self"
"""In place of a process's number: the thread that asks."""


def run_delay(pid: int | str) -> float:
    """Seconds that a process's main thread was ready and had no processor; 0 where nobody counts it."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return _counters(Path(f"/proc/{pid}"))[1]
    return 0.0


def _counters(thread: Path) -> tuple[int, float]:
    """Nanoseconds that it ran, and seconds that it waited. A wait is counted when it is over."""
    ran, waited, _ = (thread / "schedstat").read_text().split()
    return int(ran), int(waited) / 1e9


def _is_ready(thread: Path) -> bool:
    return (thread / "stat").read_text().rpartition(") ")[2].startswith("R")


class Starvation:
    """Of these processes and of our main thread, from any moment to any other (seconds, monotonic).

    It is the time for which any of them waited: what one does waits for what another does. That is rather too
    much than too little.
    """

    def __init__(self, pids: Callable[[], Sequence[int]]) -> None:
        """`pids` tells which processes there are at the moment."""
        self._pids = pids
        self._noted = 0.0
        """When it was last noted."""
        self._counters: dict[Path, tuple[int, float]] = {}
        """Of each thread, at that time."""
        self._begins: list[float] = []
        self._ends: list[float] = []
        """Of each wait, in the order in which they ended, or were seen last."""

    def note(self) -> None:
        """Look at the clock and at the counters."""
        now = time.monotonic()
        passed = now - self._noted if self._noted else 0.0
        for thread in self._threads():
            with suppress(FileNotFoundError, ProcessLookupError):  # It has ended.
                self._add(now, self._waited(thread, passed))
        ours = self._waited(Path("/proc/thread-self"), 0.0)
        self._add(now, passed - ours - 2 * NOTE_EVERY)  # Else the whole machine has stood still.
        self._noted = now

    def _threads(self) -> Iterator[Path]:
        for pid in self._pids():
            with suppress(FileNotFoundError, ProcessLookupError):
                yield from Path(f"/proc/{pid}/task").iterdir()
        yield Path(f"/proc/{os.getpid()}")

    def _waited(self, thread: Path, passed: float) -> float:
        """For how long up to now: since the last note, and longer if a longer wait has ended."""
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
        """Seconds of it. Ask some time after `end`: until then waits may go on that are not counted yet."""
        total, reached = 0.0, start
        first = bisect_left(self._ends, start)
        last = bisect_left(self._ends, end + LONGEST_WAIT)
        for begin, until in sorted(zip(self._begins[first:last], self._ends[first:last], strict=True)):
            total += max(0.0, min(until, end) - max(begin, reached))
            reached = max(reached, until)
        return total


@contextmanager
def noted(pids: Callable[[], Sequence[int]]) -> Iterator[Starvation]:
    """Note it every few ms until the end of the block."""
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
