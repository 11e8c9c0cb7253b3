"""The end of a connection, in bounded time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

CLOSE_TIMEOUT: Final = 3.0
"""Seconds that a connection has to end in once either side closes it: for a client to answer the close of its
WebSocket, and to take what is still being sent."""


class Ending:
    """The scope that a connection is served in, and its blocks that no cancellation reaches."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self._shields: set[trio.CancelScope] = set()
        self._at = math.inf

    def soon(self, seconds: float = CLOSE_TIMEOUT) -> None:
        """End it in so many seconds at the latest, also if the client does not read, or goes on for ever."""
        self._at = min(self._at, trio.current_time() + seconds)
        for scope in (self.scope, *self._shields):
            scope.deadline = min(scope.deadline, self._at)

    @contextmanager
    def shielded(self) -> Iterator[trio.CancelScope]:
        """A block that no cancellation reaches but the time limit of `soon`."""
        with trio.CancelScope(shield=True, deadline=self._at) as scope:
            self._shields.add(scope)
            try:
                yield scope
            finally:
                self._shields.discard(scope)
