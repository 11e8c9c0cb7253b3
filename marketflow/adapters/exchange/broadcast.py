"""One sequence of chunks that any number of readers get, like the clients of a real exchange."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

BACKLOG: Final = 4 * 1024 * 1024
"""The most bytes that wait for one reader, in addition to the kernel's buffers. With more it is dropped."""
AHEAD: Final = 1024 * 1024
"""The most bytes that wait for the slowest reader if the sender keeps pace with its readers. A quarter of
this would lower the rate by a tenth, since sender and readers would take turns more often."""
PATIENCE: Final = 1.0
"""Seconds for which one reader may delay the others if the sender keeps pace with its readers."""


class Reader:
    """One reader, with the chunks that it has not been sent yet."""

    def __init__(self, broadcast: Broadcast) -> None:
        self._broadcast = broadcast
        self._chunks: deque[bytes] = deque()
        self._arrived = trio.Event()
        self.dropped = trio.CancelScope()
        """The scope that is cancelled if the reader is too slow."""
        self.waiting = 0
        """Bytes that it has not taken yet, including the chunk that `next` returned last."""
        self._last = 0
        self.last_taken = trio.current_time()

    def offer(self, chunk: bytes) -> None:
        """Add a chunk to the queue."""
        self._chunks.append(chunk)
        self.waiting += len(chunk)
        self._arrived.set()

    async def next(self) -> bytes:
        """Wait for the next chunk. The call also reports that the previous chunk was taken."""
        if self._last:
            self.waiting -= self._last
            self._last = 0
            self.last_taken = trio.current_time()
            self._broadcast.taken()
        if not self._chunks:
            self._arrived = trio.Event()
            await self._arrived.wait()
        chunk = self._chunks.popleft()
        self._last = len(chunk)
        return chunk


@attrs.define
class Broadcast:
    """Gives every chunk to each reader, and drops a reader for which too much waits.

    A slow reader delays nobody: `send` does not wait. A sender that keeps pace with its readers waits for
    `room` before each chunk.
    """

    _readers: set[Reader] = attrs.field(factory=set)
    _changed: trio.Event = attrs.field(factory=trio.Event)

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """A reader that gets every chunk from now on. If it is dropped, the block is cancelled."""
        reader = Reader(self)
        self._readers.add(reader)
        self._changed.set()
        try:
            with reader.dropped:
                yield reader
        finally:
            self._readers.discard(reader)
            self._changed.set()

    def send(self, chunk: bytes) -> None:
        """Give a chunk to all readers."""
        for reader in list(self._readers):
            if reader.waiting > BACKLOG:
                self._drop(reader)
            else:
                reader.offer(chunk)

    async def first_reader(self) -> None:
        """Wait until there is a reader."""
        while not self._readers:
            self._changed = trio.Event()
            await self._changed.wait()

    async def room(self) -> None:
        """Wait until there is a reader, and no more than `AHEAD` waits for each of them.

        So the slowest reader determines the pace. If it takes nothing for `PATIENCE` while another reader has
        taken everything, it is dropped.
        """
        while not self._readers or self._most() > AHEAD:
            self._changed = trio.Event()
            with trio.move_on_after(PATIENCE):
                await self._changed.wait()
            if any(not reader.waiting for reader in self._readers):
                late = trio.current_time() - PATIENCE
                for reader in [each for each in self._readers if each.waiting and each.last_taken <= late]:
                    self._drop(reader)

    def taken(self) -> None:
        """Called by a reader that has taken a chunk."""
        if self._most() <= AHEAD // 2:
            self._changed.set()

    def _most(self) -> int:
        return max([reader.waiting for reader in self._readers], default=0)

    def _drop(self, reader: Reader) -> None:
        self._readers.discard(reader)
        reader.dropped.cancel()
