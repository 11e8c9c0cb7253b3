"""How long a connection may be idle, in a cheaper way than Hypercorn's."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import trio
from hypercorn.typing import Event, TaskGroup
from trio_util import AsyncBool


class IdleTimer:
    """Ends a connection on which nothing has been asked for too long. Fills Hypercorn's `SingleTask`.

    One task for the whole connection, whose deadline moves. Hypercorn starts a new one after each answer, and
    that is a tenth of the answer's cost.
    """

    def __init__(self, *, patience: float, terminated: Event, close: Callable[[], Awaitable[None]]) -> None:
        """The patience in seconds.

        Args:
            terminated: set when the server stops: what is idle then is closed at once.
            close: closes the connection.
        """
        self._patience = patience
        self._terminated = terminated
        self._close = close
        self._idle = AsyncBool()
        self._wait = trio.CancelScope()
        self._begun = False
        self._left = False

    async def restart(self, task_group: TaskGroup, _: object) -> None:
        """From now on nothing is being asked."""
        self._idle.value = True
        self._wait.deadline = trio.current_time() + self._patience
        if not self._begun:
            self._begun = True
            task_group.spawn(self._run)

    async def stop(self) -> None:
        """Something is being asked."""
        self._idle.value = False
        self._wait.deadline = math.inf

    def end(self) -> None:
        """The client has left: there is nothing to close."""
        self._left = True
        self._wait.cancel()

    async def _run(self) -> None:
        while True:
            with self._wait:
                await self._terminated.wait()
                await self._idle.wait_value(True)  # noqa: FBT003
            if self._left or self._idle.value:
                break
            # It has been asked something in the very moment in which the time was over.
            self._wait = trio.CancelScope()
        if not self._left:
            with trio.CancelScope(shield=True):
                await self._close()
