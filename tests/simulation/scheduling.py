"""Trio, made repeatable: a seeded scheduler, a virtual clock, and a hash over every step of every task.

Trio runs the tasks of one turn in a random order, so that nobody relies on one. Its generator and the switch
that sorts the tasks before they are shuffled are internal: there is no public way to seed them. Both are
touched here and nowhere else, and `test_repetition.py` fails if a release of Trio changes them.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Awaitable, Callable
from typing import Final

import trio
from trio._core import _run as trio_run  # the only place where the scheduler can be seeded
from trio.testing import MockClock

TURNS_WITHOUT_TIME: Final = 20_000
"""So many steps at one virtual moment are a loop that never waits: a livelock."""


class Livelock(AssertionError):
    """Tasks go on for ever without time passing."""


class Steps(trio.abc.Instrument):
    """Counts and hashes the steps of all tasks, and calls functions at given ones.

    Trio disables an instrument that raises. So what a check raises is kept, and everything is cancelled.
    """

    def __init__(self) -> None:
        self.count = 0
        self.scope = trio.CancelScope()
        """Everything runs in it."""
        self.failure: Exception | None = None
        self.after_each: Callable[[], None] | None = None
        """A check that is called after each step, before any other task runs."""
        self._hash = hashlib.blake2b(digest_size=12)
        self._calls: list[tuple[int, int, Callable[[], None]]] = []
        """A heap of (step, order, function)."""
        self._orders = 0
        self._moment = -1.0
        self._first_of_moment = 0

    def at(self, step: int, call: Callable[[], None]) -> None:
        """Have a function called before that step, or the next one if it is over."""
        self._orders += 1
        heapq.heappush(self._calls, (step, self._orders, call))

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Trio calls this."""
        self.count += 1
        now = trio.current_time()
        if now != self._moment:
            self._moment, self._first_of_moment = now, self.count
        elif self.count - self._first_of_moment > TURNS_WITHOUT_TIME:
            self.fail(Livelock(f"{TURNS_WITHOUT_TIME} steps at {now:.6f} s, the last of {task.name}"))
        self._hash.update(f"{task.name} {now!r}\n".encode())
        while self._calls and self._calls[0][0] <= self.count:
            heapq.heappop(self._calls)[2]()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 - Trio's signature
        """Trio calls this."""
        if self.after_each is not None and self.failure is None:
            try:
                self.after_each()
            except Exception as error:  # noqa: BLE001 - kept, and raised by `run`
                self.fail(error)

    def fail(self, error: Exception) -> None:
        """The history is wrong. It ends, and `run` raises this, even if the product catches the error."""
        if self.failure is None:
            self.failure = error
            self.scope.cancel()

    @property
    def digest(self) -> str:
        """The hash of all steps up to now: which task, and at what time."""
        return self._hash.hexdigest()

    @property
    def seconds(self) -> float:
        """How much virtual time has passed."""
        return max(0.0, self._moment)


def run(main: Callable[[Steps], Awaitable[None]], seed: int) -> None:
    """Run an async function on a virtual clock, with the order of tasks decided by the seed.

    What it raises comes out.
    """
    steps, clock = Steps(), MockClock(autojump_threshold=0)
    random, deterministic = trio_run._r, trio_run._ALLOW_DETERMINISTIC_SCHEDULING
    state = random.getstate()
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    random.seed(seed)

    async def everything() -> None:
        with steps.scope:
            await main(steps)

    try:
        trio.run(everything, clock=clock, instruments=[steps])
    except Exception:
        if steps.failure is None:
            raise  # Otherwise it follows from that failure, which cancelled everything.
    finally:
        random.setstate(state)
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = deterministic  # type: ignore[misc]
    if steps.failure is not None:
        raise steps.failure
