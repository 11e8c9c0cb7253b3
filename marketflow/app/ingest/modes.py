"""The switch between live and test mode. The sources of the current mode run in a nursery of their own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import structlog
import trio
from trio_util import AsyncValue, wait_any

from marketflow.app.answers import NothingCanAnswer
from marketflow.app.interface import Mode

RunSources = Callable[[Mode, trio.Event], Awaitable[None]]
"""Runs a mode's sources until the event is set and all that they sent is in the book."""

log = structlog.get_logger()


class Modes:
    """Runs the sources of one mode at a time.

    A switch names the wanted mode and waits. The sources of the old mode end, and then each later stage,
    because its input ended. The new mode's sources begin when the last update of the old mode is in the book.
    """

    def __init__(self, mode: Mode) -> None:
        """Begin in `mode`."""
        self._mode = AsyncValue[Mode](mode)
        self._wanted = AsyncValue[Mode](mode)
        self._ended = trio.Event()

    @property
    def mode(self) -> Mode:
        """The current mode; during a switch still the old one."""
        mode: Mode = self._mode.value
        return mode

    async def switch(self, mode: Mode) -> bool:
        """Switch to `mode` and wait until it is done; returns whether it was another mode before.

        Switches that are asked for at the same time are done one after the other. A switch that has begun is
        carried through, even if its caller is cancelled.

        Raises:
            NothingCanAnswer: the service is stopping.
        """
        while self._wanted.value != self._mode.value and not self._ended.is_set():
            await wait_any(self._switched, self._ended.wait)
        changed = self.mode != mode
        self._wanted.value = mode
        await wait_any(lambda: self._mode.wait_value(mode), self._ended.wait)
        if self._ended.is_set():
            raise NothingCanAnswer
        return changed

    async def _switched(self) -> None:
        """Wait until no switch is under way."""
        await self._mode.wait_value(lambda mode: mode == self._wanted.value)

    async def run(self, run_sources: RunSources, stopping: trio.Event) -> None:
        """Run the wanted mode's sources until `stopping` is set and all of them have ended."""
        try:
            while not stopping.is_set():
                mode = self._wanted.value
                self._mode.value = mode
                log.info("mode entered", mode=mode)
                await self._run(partial(run_sources, mode), stopping)
        finally:
            self._ended.set()

    async def _run(self, run: Callable[[trio.Event], Awaitable[None]], stopping: trio.Event) -> None:
        leave = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, leave)
            await wait_any(stopping.wait, self._unwanted)
            leave.set()

    async def _unwanted(self) -> None:
        await self._wanted.wait_value(lambda wanted: wanted != self._mode.value)
