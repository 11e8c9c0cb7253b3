"""When the flusher has something to do: updates have entered, or somebody asks for a flush."""

from __future__ import annotations

import trio

from marketflow.app.share.arrivals import Arrivals


class Wake:
    """Wakes the flusher. Any part may ask for a flush; only the flusher waits."""

    def __init__(self, arrivals: Arrivals) -> None:
        """`arrivals` grow when updates enter."""
        self._arrivals = arrivals
        self._asked = trio.Event()
        self._idle = trio.CancelScope()
        """The flusher's wait for something to do."""

    def ask(self) -> None:
        """Have the next flush made now. A flush that has begun does not count."""
        self._asked.set()
        self._idle.cancel()

    def begin(self) -> None:
        """A flush begins: who asks from now on asks for the next one."""
        self._asked = trio.Event()

    async def wait_asked(self) -> None:
        """Wait until somebody asks."""
        await self._asked.wait()

    async def wait_for_work(self, deadline: float) -> None:
        """Wait until updates enter, somebody asks, or it is `deadline` (of Trio's clock).

        Updates that have entered before do not count.
        """
        if self._asked.is_set():
            return
        with trio.CancelScope(deadline=deadline) as self._idle:
            await self._arrivals.wait_beyond(self._arrivals.next)
