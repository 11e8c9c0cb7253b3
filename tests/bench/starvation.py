"""How long processes were ready to run and did not: what a promise in milliseconds cannot be blamed for.

Two things are added up. The kernel counts how long each thread waited for a processor (its run delay). And a
thread of our own sleeps for a few milliseconds again and again: if it wakes up later than that, the whole
machine may have stood still, which no counter shows.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

NOTE_EVERY = 0.004
"""Seconds."""
OURSELVES = "thread-self"
"""In place of a process's number: the thread that asks."""


def run_delay(pid: int | str) -> float:
    """Seconds that a process's main thread was ready and had no processor; 0 where nobody counts it."""
    return _run_delay(Path(f"/proc/{pid}"))


def run_delay_of_all(pid: int | str) -> float:
    """The same of all its threads."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return sum(_run_delay(thread) for thread in Path(f"/proc/{pid}/task").iterdir())
    return 0.0


def _run_delay(directory: Path) -> float:
    with suppress(FileNotFoundError, ProcessLookupError):
        return int((directory / "schedstat").read_text().split()[1]) / 1e9
    return 0.0


class Starvation:
    """Of these processes and of our main thread, from any moment to any other (seconds, monotonic).

    Delays add up, since what one does waits for what another does; but never to more than the time that has
    passed. That is rather too much than too little.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._at: list[float] = []
        self._starved: list[float] = []
        """Up to then."""
        self._delays: dict[int | str, float] = {}
        """Of each process, of our main thread and of the one that notes."""

    def note(self) -> None:
        """Look at the clock and at the counters."""
        now = time.monotonic()
        delays = [self._grown(pid, run_delay_of_all(pid)) for pid in self._pids]
        delays.append(self._grown(os.getpid(), run_delay(os.getpid())))
        ours = self._grown(OURSELVES, run_delay(OURSELVES))
        if self._at:
            passed = now - self._at[-1]
            stood_still = max(0.0, passed - ours - 2 * NOTE_EVERY)
            self._starved.append(self._starved[-1] + min(passed, sum(delays) + stood_still))
        else:
            self._starved.append(0.0)
        self._at.append(now)

    def _grown(self, whose: int | str, delay: float) -> float:
        """By how much since the last note; 0 if a thread, or all, have ended meanwhile."""
        before = self._delays.get(whose, delay)
        self._delays[whose] = delay
        return max(0.0, delay - before)

    def between(self, start: float, end: float) -> float:
        """Seconds of it, from the last note up to `start` to the first from `end` on."""
        first = max(bisect_right(self._at, start) - 1, 0)
        last = min(bisect_left(self._at, end), len(self._at) - 1)
        return self._starved[last] - self._starved[first]


@contextmanager
def noted(*pids: int) -> Iterator[Starvation]:
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
