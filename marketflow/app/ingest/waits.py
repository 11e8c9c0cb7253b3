"""Waits for the outside world, which a stop ends."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

T = TypeVar("T")

AT_ONCE: Final = 1e-3
"""Seconds: long enough to take what is there. With a time of zero Trio would cancel the wait before a try."""


class Waits:
    """The waits of a feed and its source.

    A stop ends these waits and nothing else. A send to the workers is no wait for the outside, so nothing
    that was received is lost to a stop.
    """

    def __init__(self, stopping: trio.Event) -> None:
        self._stopping = stopping
        self._scopes: dict[trio.CancelScope, None] = {}
        """Of the waits that go on just now, one for each task of the source at most. No set: the stop ends
        them in the same order in each run."""

    @property
    def stopping(self) -> bool:
        """Whether the stop has come."""
        return self._stopping.is_set()

    async def outside(self, wait: Callable[[], Awaitable[T]], seconds: float = math.inf) -> T | None:
        """Call `wait` and return its result; None if the stop or the time limit ended it.

        After the stop it gets a moment, to take what is there already.
        """
        scope = trio.CancelScope(relative_deadline=AT_ONCE if self._stopping.is_set() else seconds)
        self._scopes[scope] = None
        try:
            with scope:
                return await wait()
        finally:
            del self._scopes[scope]
        return None

    async def end_at_stop(self) -> None:
        """Wait for the stop, then end the waits."""
        await self._stopping.wait()
        for scope in self._scopes:
            scope.cancel()
