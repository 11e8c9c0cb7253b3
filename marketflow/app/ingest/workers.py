"""Fan-out and fan-in: chunks of one exchange go to a pool of workers, and their batches go to the book.

```
 feed ──chunk──> worker x5 ──batch──> fan-in ──(in the order of the chunks)──> book
```
The channel of chunks has one owner, the feed, which closes it. So each stage ends because its input ended,
and nothing in the channel is thrown away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from marketflow.app.ports import AnyPayload, Batch, Chunk, Decode, Decoded

CHUNK_BUFFER: Final = 8
"""Chunks (64 to 256 KiB) between feed and workers: enough that a burst does not wait for a task switch."""


async def run_pool(
    feed: Callable[[trio.MemorySendChannel[Chunk[AnyPayload]]], Awaitable[None]],
    *,
    decode: Decode[AnyPayload],
    enter: Callable[[Batch], Awaitable[None]],
    workers: int,
    first: int = 0,
) -> None:
    """Run a feed and its pool until the feed has ended and all that it sent has entered the book.

    Args:
        feed: sends the chunks; it owns its end of the channel and closes it.
        decode: what a worker does to a payload.
        enter: takes a batch in. While it waits, the pool fills up, and in the end the exchange's socket.
        workers: how many workers share the chunks.
        first: the number of the feed's first chunk.
    """
    fan_in = FanIn(enter, workers=workers, first=first)
    async with trio.open_nursery() as nursery:
        send, receive = trio.open_memory_channel[Chunk[AnyPayload]](CHUNK_BUFFER)
        nursery.start_soon(feed, send)
        async with receive:
            for _ in range(workers):
                nursery.start_soon(_work, decode, receive.clone(), fan_in)


async def _work(
    decode: Decode[AnyPayload], chunks: trio.MemoryReceiveChannel[Chunk[AnyPayload]], fan_in: FanIn
) -> None:
    async with chunks:
        async for chunk in chunks:
            await fan_in.take(_batch_of(chunk, decode(chunk.payload)))
    fan_in.leave()


def _batch_of(chunk: Chunk[AnyPayload], decoded: Decoded) -> Batch:
    return Batch(
        exchange=chunk.exchange,
        number=chunk.number,
        received=decoded.received,
        rejected=decoded.rejected,
        updates=decoded.updates,
        ignored_volumes=decoded.ignored_volumes,
        identity=decoded.identity,
        received_at=chunk.payload.received_at,
        received_monotonic=chunk.payload.received_monotonic,
    )


class FanIn:
    """Enters batches in the order of their chunks: a worker may have overtaken another.

    The worker that has the next batch enters it. The others wait for their turn, each with one batch. A
    channel to a task of its own would be one more change of tasks for each chunk, which costs as much as ten
    lines.
    """

    def __init__(self, enter: Callable[[Batch], Awaitable[None]], *, workers: int, first: int) -> None:
        """`workers`: how many will take part. `first`: the number of the first chunk."""
        self._enter = enter
        self._workers = workers
        """How many have not left."""
        self._next = first
        """The number of the next chunk."""
        self._turns: dict[int, trio.Event] = {}
        """By the number of its chunk, what each waiting worker waits for."""

    async def take(self, batch: Batch) -> None:
        """Enter it after all batches before it.

        Raises:
            RuntimeError: a chunk has never come, so those after it could not be entered.
        """
        if batch.number != self._next:
            turn = self._turns[batch.number] = trio.Event()
            self._check()
            await turn.wait()
        await self._enter(batch)
        self._next += 1
        if (turn_of_next := self._turns.pop(self._next, None)) is not None:
            turn_of_next.set()

    def leave(self) -> None:
        """A worker has ended.

        Raises:
            RuntimeError: a chunk has never come.
        """
        self._workers -= 1
        self._check()

    def _check(self) -> None:
        """Chunks are received in order, so if all workers wait, none of them will have the next one."""
        if self._turns and len(self._turns) == self._workers:
            raise RuntimeError(f"chunk {self._next} has never come, {len(self._turns)} after it have")
