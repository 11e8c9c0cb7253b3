"""The whole service in the test's own task tree."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import trio
from asking import Client, eventually

from marketflow.app.interface import HealthReport
from marketflow.config import Settings
from marketflow.service import Running, serve


@attrs.frozen
class Service:
    """A running service."""

    client: Client
    report: Callable[[], HealthReport]

    async def accepted(self, count: int) -> None:
        """Wait until that many updates were accepted since its start."""
        await eventually(lambda: self.report().updates.accepted >= count)
        assert self.report().updates.accepted == count

    async def healthy(self) -> None:
        """Wait until exchanges and stores are connected: the stores may answer after the exchanges."""
        await eventually(lambda: self.report().status == "ok")


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Service]:
    """Serve until the end of the block, then stop in order and in time."""
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        started: Running = await nursery.start(serve, settings, stopping)
        try:
            yield Service(Client(started.url), started.report)
        finally:
            stopping.set()
            nursery.cancel_scope.deadline = trio.current_time() + settings.shutdown_timeout / 1_000
