"""For tests on the real clock, which must not fail because the machine is slow or stands still for seconds.

Limits on how long something takes are on a clock that hardly advances meanwhile. A thread sleeps for `STEP`
repeatedly and counts: on a busy or stalled machine the count falls behind the real time, and it never runs
ahead of it. A call that waits too long, or that blocks the event loop, exceeds such a limit.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TypeVar

import trio

from marketflow.app.ports import StoreAway, StoreTaken

T = TypeVar("T")

STEP = 0.01
"""In seconds."""


class SlowClock:
    """Made by `slow_clock`."""

    def __init__(self) -> None:
        self._ending = threading.Event()
        self._steps = 0

    @property
    def seconds(self) -> float:
        """The seconds since its start for which the machine did not stand still."""
        return self._steps * STEP

    def run(self) -> None:
        """Count until `end`."""
        while not self._ending.wait(STEP):
            self._steps += 1

    def end(self) -> None:
        """End `run`."""
        self._ending.set()


@contextmanager
def slow_clock() -> Iterator[SlowClock]:
    """A clock that runs until the end of the block."""
    clock = SlowClock()
    thread = threading.Thread(target=clock.run)
    thread.start()
    try:
        yield clock
    finally:
        clock.end()
        thread.join()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Check that the block takes less than that. It is not cancelled."""
    with slow_clock() as clock:
        yield
        took = clock.seconds
    assert took < seconds, f"it took {took:.2f} s, not less than {seconds:g} s"


class Pulse:
    """Made by `pulse`."""

    def __init__(self) -> None:
        self.longest = 0.0
        """The longest time between two turns of the event loop, in seconds of a slow clock."""

    async def beat(self, clock: SlowClock) -> None:
        """Measure until cancelled."""
        while True:
            before = clock.seconds
            await trio.sleep(STEP)
            self.longest = max(self.longest, clock.seconds - before)


@asynccontextmanager
async def pulse() -> AsyncIterator[Pulse]:
    """Measure for how long the event loop is blocked, until the end of the block."""
    measured = Pulse()
    with slow_clock() as clock:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(measured.beat, clock)
            yield measured
            nursery.cancel_scope.cancel()


async def answered(call: Callable[[], Awaitable[T]], *, seconds: float = 30.0) -> T:
    """The result of a call to a store that may be away at first, such as one with a short time limit."""
    with trio.fail_after(seconds):
        while True:
            with suppress(StoreAway, StoreTaken):
                return await call()
            await trio.sleep(0.05)
