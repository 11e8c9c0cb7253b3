"""Writes on their way to the window: each under the lease, acknowledged in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from marketflow.app.instruments.histogram import Histogram
from marketflow.app.ports import EncodedFlush, Flush, Window
from marketflow.app.share.lease import WriterLease
from marketflow.app.share.trials import Trials


def _nothing() -> None:
    """No-op callback."""


class Sender:
    """Sends flushes, notes what the window acknowledges, and whether it was emptied.

    Its methods raise StoreAway, and StoreTaken if another boot has the window.
    """

    def __init__(self, window: Window, lease: WriterLease, trials: Trials) -> None:
        self.write_seconds: Final = Histogram()
        """How long each write took that the window has acknowledged."""
        self.acknowledged_at = -1.0
        """When the window acknowledged a write last (Trio's clock)."""
        self._window = window
        self._lease = lease
        self._trials = trials
        self._posted: list[tuple[float, Callable[[], None]]] = []
        """When each flush on its way was sent (Trio's clock), and the callback for its acknowledgement."""
        self._waiting = trio.lowlevel.ParkingLot()
        """Tasks that wait for the next acknowledgement or failure."""

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way."""
        return not self._posted

    @property
    def asked(self) -> bool:
        """Whether somebody waits to learn if the window still answers."""
        return bool(self._waiting)

    async def write(self, flush: EncodedFlush, acknowledge: Callable[[], None] = _nothing) -> None:
        """Send a flush, and wait until it is acknowledged."""
        await self._lease.ensure()
        self._posted.append((trio.current_time(), acknowledge))
        self._acknowledged(intact=await self._window.write(flush))

    async def post(self, flush: EncodedFlush, acknowledge: Callable[[], None] = _nothing) -> None:
        """Send a flush that is acknowledged with the next: one is always on its way."""
        await self._lease.ensure()
        began = trio.current_time()
        self._acknowledged(intact=await self._window.post(flush))
        self._posted.append((began, acknowledge))

    async def collect(self) -> None:
        """Wait until all that is on its way is acknowledged."""
        if self._posted:
            self._acknowledged(intact=await self._window.collect())

    async def mark(self) -> None:
        """Write nothing but the marker: it tells whether the window is there, and was emptied."""
        await self.write(self._window.encode(Flush((), ())))

    def give_up(self) -> None:
        """The window failed: what was on its way will be sent again."""
        self._posted.clear()

    async def heard(self) -> None:
        """Wait until the window acknowledges something, or fails."""
        await self._waiting.park()

    def tell_waiting(self) -> None:
        """Wake the tasks that wait for an acknowledgement or a failure."""
        if self._waiting:
            self._waiting.unpark_all()

    def _acknowledged(self, *, intact: bool) -> None:
        """All that was posted is in the window."""
        if not self._posted:
            return
        now = trio.current_time()
        for began, acknowledge in self._posted:
            self.write_seconds.observe(now - began)
            acknowledge()
            self.acknowledged_at = now
        if not intact:
            self._trials.become(self._trials.link.emptied())
        sent_at = self._posted[-1][0]
        self._posted.clear()
        self.tell_waiting()
        self._lease.wrote(sent_at)
