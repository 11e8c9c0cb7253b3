"""What waits to be sent on a connection."""

from __future__ import annotations

from typing import Final

import trio

BACKLOG: Final = 4 * 1024 * 1024
"""The most bytes that wait, in addition to the kernel's buffers. With more, the client counts as too slow."""


class Outbox:
    """Bytes in the order of sending, and the end after them."""

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        self._size = 0
        self._ended = False
        self._changed = trio.Event()
        self.dropped = trio.CancelScope()
        """The scope that is cancelled to drop the connection at once."""

    @property
    def full(self) -> bool:
        """Whether too much waits."""
        return self._size > BACKLOG

    def put(self, data: bytes) -> None:
        """Add bytes."""
        self._waiting.append(data)
        self._size += len(data)
        self._changed.set()

    def end(self) -> None:
        """Nothing comes after what waits now."""
        self._ended = True
        self._changed.set()

    async def take(self) -> bytes:
        """Wait for bytes, and take all of them at once; empty at the end."""
        while not self._waiting and not self._ended:
            self._changed = trio.Event()
            await self._changed.wait()
        data = b"".join(self._waiting)
        self._waiting.clear()
        self._size = 0
        return data
