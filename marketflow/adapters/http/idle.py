"""How long a connection may be idle."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio
from trio_util import AsyncBool


class Happening(Protocol):
    """Something that happens once, such as a trio.Event."""

    async def wait(self) -> None:
        """Wait until it has happened."""


class IdleTimer:
    """Closes a connection that has been without a request for too long.

    One task serves the whole connection, with a deadline that moves: a task for each wait would be a tenth of
    the cost of an answer.
    """

    def __init__(self, *, patience: float, stopping: Happening, close: Callable[[], Awaitable[None]]) -> None:
        """The connection begins idle.

        Args:
            patience: seconds that it may be idle.
            stopping: happens when the server stops; an idle connection is then closed at once.
            close: closes the connection.
        """
        self._patience = patience
        self._stopping = stopping
        self._close = close
        self._idle = AsyncBool()
        self._wait = trio.CancelScope()
        self._left = False
        self.idle()

    def idle(self) -> None:
        """Start the idle time: no request is being answered."""
        self._idle.value = True
        self._wait.deadline = trio.current_time() + self._patience

    def busy(self) -> None:
        """Stop the idle time: a request has arrived."""
        self._idle.value = False
        self._wait.deadline = math.inf

    def end(self) -> None:
        """End the timer without closing anything: the client has left."""
        self._left = True
        self._wait.cancel()

    async def run(self) -> None:
        """Close the connection when its idle time is over."""
        while True:
            with self._wait:
                await self._stopping.wait()
                await self._idle.wait_value(True)  # noqa: FBT003
            if self._left or self._idle.value:
                break
            # A request arrived at the moment when the time was over.
            self._wait = trio.CancelScope()
        if not self._left:
            with trio.CancelScope(shield=True):
                await self._close()
