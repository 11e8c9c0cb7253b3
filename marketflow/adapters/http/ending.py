"""The end of a connection, in bounded time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

CLOSE_TIMEOUT: Final = 3.0
"""Seconds from the moment that either side closes a connection until its socket is closed. In this time the
client can read what is still being sent, and close its side."""


class Ending:
    """The cancel scope of a connection, and shielded blocks in it."""

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
        """End the connection when the current send is complete."""
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
