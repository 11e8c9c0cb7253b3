"""The flushes of the last 60 s, encoded, to write them again when Redis comes back empty."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from marketflow.app.ports import EncodedFlush


class Replay:
    """Keeps what was acknowledged for `length` ms, and at most `memory` bytes of it.

    Past that the oldest goes first: the window is then whole again only as far as memory reaches, which
    readers notice, since the bars count what is missing.
    """

    def __init__(self, *, length: int, memory: int) -> None:
        self._length = length
        self._memory = memory
        self._flushes: deque[tuple[int, EncodedFlush]] = deque()
        self._size = 0

    def keep(self, flush: EncodedFlush, newest: int) -> None:
        """Remember an acknowledged flush; `newest` is its greatest timestamp (ms)."""
        updates = flush.without_bars()
        self._flushes.append((newest, updates))
        self._size += updates.size
        while self._size > self._memory:
            self._forget_oldest()

    def forget_before(self, now: int) -> None:
        """Forget flushes that have left the window at `now` (ms)."""
        while self._flushes and self._flushes[0][0] < now - self._length:
            self._forget_oldest()

    def flushes(self) -> Sequence[EncodedFlush]:
        """What is remembered, oldest first."""
        return [flush for _, flush in self._flushes]

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        return self._size

    def _forget_oldest(self) -> None:
        _, flush = self._flushes.popleft()
        self._size -= flush.size
