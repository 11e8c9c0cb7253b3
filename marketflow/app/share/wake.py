"""Asks for the next flush now instead of at its time."""

from __future__ import annotations

import trio


class Wake:
    """A request for the next flush. Any part may make it; only the flusher waits for it."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def ask(self) -> None:
        """Have the next flush made now. A flush that has begun does not count."""
        self._event.set()

    def begin(self) -> None:
        """A flush begins: what is asked for from now on is the next."""
        self._event = trio.Event()

    async def wait(self) -> None:
        """Wait until somebody asks."""
        await self._event.wait()
