"""Exchanges that send one sequence of updates to all their clients, and record it."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress

import trio

from tests.faults.rig import BASE, Sent, now_ms

TICK = 0.05
"""Seconds between two updates of each symbol."""
MOST_WAITING = 100_000
"""Pieces that may wait for a client, beyond what the system buffers: more than a test sends."""


class Market:
    """A TCP server. A client gets all that is sent after it has connected, however slow it is."""

    _orders = itertools.count(1)

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self.sent: list[Sent] = []
        """Everything, also what was sent while no client was connected. No two have the same price."""
        self.quiet = trio.Lock()
        """While a test holds it, nothing is sent."""
        self._clients: set[trio.MemorySendChannel[bytes]] = set()
        self._random = random.Random(name)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve and send until cancelled."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, self._serve, listeners)
            nursery.start_soon(self._play)
            task_status.started()

    async def _serve(self, stream: trio.SocketStream) -> None:
        send, receive = trio.open_memory_channel[bytes](MOST_WAITING)
        self._clients.add(send)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, stream, receive)
                with suppress(trio.BrokenResourceError):
                    async for _ in stream:
                        pass
                nursery.cancel_scope.cancel()
        finally:
            self._clients.remove(send)

    @staticmethod
    async def _write(stream: trio.SocketStream, receive: trio.MemoryReceiveChannel[bytes]) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for piece in receive:
                await stream.send_all(piece)

    async def _play(self) -> None:
        while True:
            async with self.quiet:
                updates = [self._update(symbol) for symbol in BASE]
                self.sent += updates
                piece = b"".join(update.line for update in updates)
                for client in self._clients:
                    client.send_nowait(piece)
            await trio.sleep(TICK)

    def _update(self, symbol: str) -> Sent:
        timestamp = now_ms() - self._random.choice((0, 0, 0, 5, 40))
        price = BASE[symbol] * self._random.uniform(0.9, 1.1)
        return Sent(self.name, symbol, price, timestamp, next(self._orders), time.monotonic())


@asynccontextmanager
async def markets(*names: str) -> AsyncIterator[list[Market]]:
    """Markets that send during the block."""
    made = [Market(name) for name in names]
    async with trio.open_nursery() as nursery:
        for each in made:
            await nursery.start(each.run)
        yield made
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def quiet(all_of_them: Collection[Market]) -> AsyncIterator[None]:
    """A block in which none of them sends."""
    for each in all_of_them:
        await each.quiet.acquire()
    try:
        yield
    finally:
        for each in all_of_them:
            each.quiet.release()
