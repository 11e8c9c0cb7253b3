"""An exchange that a test controls: a real TCP server that sends and fails as the test wants."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio

HOST = "127.0.0.1"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class ExchangeServer:
    """Listens on a port of its own, which it keeps even while it refuses connections.

    It sends only the bytes that `send` gets. Methods that are not async take effect at once. `send`, `close`
    and `reset` apply to the newest connection.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        # Bound but not listening: the port stays ours, and connections are refused until `listen`.
        self._holder = _bound(0)
        self._listener: trio.socket.SocketType | None = None
        self._streams: list[trio.SocketStream] = []
        """Connections that have not ended."""
        self._changed = trio.Event()
        self.port: int = self._holder.getsockname()[1]
        self.connections = 0
        """The number of accepted connections so far."""
        self.listen()

    # ---- what it does ----

    async def send(self, data: bytes) -> None:
        """Send bytes, waiting for a connection, and for its reader.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: the connection has ended meanwhile.
        """
        while not self._streams:
            await self._changed.wait()
        await self._streams[-1].send_all(data)

    def close(self) -> None:
        """End the connection in an orderly way."""
        self._streams.pop().socket.close()

    def reset(self) -> None:
        """End the connection with a reset."""
        _reset(self._streams.pop())

    def listen(self) -> None:
        """Accept connections (again)."""
        bound = _bound(self.port)
        bound.listen()
        self._listener = listener = trio.socket.from_stdlib_socket(bound)
        self._nursery.start_soon(self._accept, listener)

    def refuse(self) -> None:
        """Refuse connections from now on; existing ones stay."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def kill(self) -> None:
        """End like a killed process: refuse connections, and reset the existing ones."""
        self.refuse()
        while self._streams:
            self.reset()

    def shut_down(self) -> None:
        """Close everything."""
        self.kill()
        self._holder.close()

    # ---- what is done to it ----

    async def connected(self, count: int) -> None:
        """Wait until that many connections were accepted in total."""
        while self.connections < count:
            await self._changed.wait()

    async def left(self) -> None:
        """Wait until no connection is left because the readers have closed theirs."""
        while self._streams:
            await self._changed.wait()

    async def _accept(self, listener: trio.socket.SocketType) -> None:
        # The listener was closed to end this task.
        with suppress(trio.ClosedResourceError):
            while True:
                connection, _ = await listener.accept()
                stream = trio.SocketStream(connection)
                self._streams.append(stream)
                self.connections += 1
                self._nursery.start_soon(self._watch, stream)
                self._notify()

    async def _watch(self, stream: trio.SocketStream) -> None:
        """Notice the end of a connection."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while await stream.receive_some():
                pass
        if stream in self._streams:
            self._streams.remove(stream)
        stream.socket.close()
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


@asynccontextmanager
async def open_exchange() -> AsyncIterator[ExchangeServer]:
    """An exchange that listens, until the end of the block."""
    async with trio.open_nursery() as nursery:
        exchange = ExchangeServer(nursery)
        try:
            yield exchange
        finally:
            exchange.shut_down()


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind((HOST, port))
    return bound


def _reset(stream: trio.SocketStream) -> None:
    with suppress(OSError):  # it has ended already
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    stream.socket.close()
