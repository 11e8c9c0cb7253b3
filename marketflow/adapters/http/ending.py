"""The end of a connection, in bounded time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

CLOSE_TIMEOUT: Final = 3.0
"""Seconds that a connection has to end in once either side closes it: for the client to take what is still
being sent, and to leave."""


class Ending:
    """The scope that a connection is served in, and the blocks in it that a cancellation does not reach."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self._shields: set[trio.CancelScope] = set()
        self._at = math.inf

    def soon(self, seconds: float = CLOSE_TIMEOUT) -> None:
        """End the connection within so many seconds, also if the client does not read or keeps sending."""
        self._at = min(self._at, trio.current_time() + seconds)
        for scope in (self.scope, *self._shields):
            scope.deadline = min(scope.deadline, self._at)

    def now(self) -> None:
        """End the connection, once what is being sent is on its way."""
        self.soon()
        self.scope.cancel()

    @contextmanager
    def shielded(self) -> Iterator[trio.CancelScope]:
        """A block that only the time limit of `soon` can cancel."""
        with trio.CancelScope(shield=True, deadline=self._at) as scope:
            self._shields.add(scope)
            try:
                yield scope
            finally:
                self._shields.discard(scope)
