"""Fan-out and fan-in: the chunks of one exchange go to a pool of workers, their batches to the book.

```
 feed ──chunk──> worker x5 ──batch──> fan-in ──(in the order of the chunks)──> book
```
Every channel end has one owner that closes it, so each stage ends because its input ended, and nothing in a
channel is ever thrown away: the feed closes the chunks, the last worker closes the batches.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from marketflow.app.ports import Batch, Chunk, Decode

CHUNK_BUFFER: Final = 8
"""Chunks (64 to 256 KiB) between feed and workers: enough that a burst does not wait for a task switch."""


async def run_pool(
    feed: Callable[[trio.MemorySendChannel[Chunk]], Awaitable[None]],
    *,
    decode: Decode,
    enter: Callable[[Batch], Awaitable[None]],
    workers: int,
) -> None:
    """Run a feed and its pool until the feed has ended and all that it sent has entered the book.

    Args:
        feed: owns and closes the channel end that it is given.
        decode: what a worker does to a chunk.
        enter: takes a batch in; may wait, which pushes back through the pool to the exchange's socket.
        workers: how many workers share the chunks.
    """
    async with trio.open_nursery() as nursery:
        chunk_send, chunk_receive = trio.open_memory_channel[Chunk](CHUNK_BUFFER)
        batch_send, batch_receive = trio.open_memory_channel[Batch](workers)
        nursery.start_soon(feed, chunk_send)
        async with chunk_receive, batch_send:
            for _ in range(workers):
                nursery.start_soon(_work, decode, chunk_receive.clone(), batch_send.clone())
        nursery.start_soon(_fan_in, batch_receive, enter)


async def _work(
    decode: Decode,
    chunks: trio.MemoryReceiveChannel[Chunk],
    batches: trio.MemorySendChannel[Batch],
) -> None:
    async with chunks, batches:
        async for chunk in chunks:
            await _pass_on(batches, decode(chunk))


async def _pass_on(batches: trio.MemorySendChannel[Batch], batch: Batch) -> None:
    """Send; where there is room without giving the others a turn: to receive the next chunk does that.

    A small chunk's way from its socket to the book takes a tenth less.
    """
    try:
        batches.send_nowait(batch)
    except trio.WouldBlock:
        await batches.send(batch)


async def _fan_in(
    batches: trio.MemoryReceiveChannel[Batch],
    enter: Callable[[Batch], Awaitable[None]],
) -> None:
    """Bring batches back into the order of their chunks: a worker may overtake another."""
    ahead: dict[int, Batch] = {}
    number = 0
    async with batches:
        async for batch in batches:
            ahead[batch.number] = batch
            while (following := ahead.pop(number, None)) is not None:
                number += 1
                await enter(following)
