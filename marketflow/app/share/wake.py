"""When the flusher has something to do: updates have entered, somebody asks for a flush, or it is time to."""

from __future__ import annotations

import math

import trio

from marketflow.app.share.arrivals import Arrivals


class Wake:
    """Wakes the flusher. Any part may ask for a flush; only the flusher waits.

    The flusher waits up to 40 times a second, and nearly always updates end the wait. A time limit for each
    wait would cost as much as several updates. So a task of its own, `run`, sleeps until the time at which
    something is due. If that has been put off meanwhile it sleeps again; if it has come nearer it is woken.
    """

    def __init__(self, arrivals: Arrivals) -> None:
        """`arrivals` grow when updates enter."""
        self._arrivals = arrivals
        self._asked = trio.Event()
        self._due_at = -math.inf
        """When the present wait ends, or the last one should have ended (seconds of Trio's clock)."""
        self._timer = trio.lowlevel.ParkingLot()
        """`run` is parked here while nothing is due."""
        self._sleep = trio.CancelScope()
        """The last sleep of `run`."""

    def ask(self) -> None:
        """Have the next flush made now. A flush that has begun does not count."""
        self._asked.set()
        self._arrivals.wake()

    def begin(self) -> None:
        """A flush begins: who asks from now on asks for the next one."""
        if self._asked.is_set():
            self._asked = trio.Event()

    async def wait_asked(self) -> None:
        """Wait until somebody asks."""
        await self._asked.wait()

    async def wait_for_work(self, due_at: float) -> None:
        """Wait until updates enter, somebody asks, or it is `due_at` (of Trio's clock).

        Updates that have entered before do not count.
        """
        before = self._arrivals.next
        self._due_at = due_at
        if due_at < self._sleep.deadline:  # noqa: PLR1730 - to set it is dear even if it stays the same
            self._sleep.deadline = due_at
        if self._timer:
            self._timer.unpark_all()
        while not self._asked.is_set() and self._arrivals.next == before and trio.current_time() < due_at:
            await self._arrivals.wait()

    async def run(self) -> None:
        """End the waits for work when their time has come, until it is cancelled."""
        while True:
            if trio.current_time() < self._due_at:
                with trio.CancelScope(deadline=self._due_at) as self._sleep:
                    await trio.sleep_forever()
            else:
                self._arrivals.wake()
                await self._timer.park()
