"""Connections of clients: their number is limited, and each is served from its beginning to its end."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, cast

import trio
from hypercorn.typing import WWWScope

from marketflow.adapters.http.connection_errors import ConnectionErrors, OneConnection
from marketflow.adapters.http.hypercorn_parts import Hypercorn
from marketflow.adapters.http.sending import GONE
from marketflow.adapters.http.wire import ClientWire

UNREAD_TIMEOUT_MS: Final = 2_000
"""How long sent data may stay unread by a client before its connection is dropped."""
STREAM_UNREAD_TIMEOUT_MS: Final = 60_000
"""The same for a client of a stream: after a minute without a network it goes on with the newest prices."""
MOST_RECEIVED: Final = 64 * 1024
"""Bytes that are read at a time."""
REFUSAL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nConnection: close\r\n"
    b"Retry-After: 1\r\nContent-Length: %d\r\n\r\n%b"
)
TOO_MANY: Final = (
    b'{"type":"about:blank","title":"Service Unavailable","status":503,'
    b'"detail":"the service has as many connections as http.max_connections, try again later"}'
)
"""The answer to a connection over the limit. It is sent without waiting for a request."""
REFUSAL_SECONDS: Final = 0.5
"""How long that client has to read the answer."""
MOST_REFUSED: Final = 256
"""The most connections that are refused with an answer at a time; more are closed without one."""

_PEER: Final = "marketflow.peer"


class Peers:
    """The connections that are open."""

    def __init__(self, most: int, errors: ConnectionErrors) -> None:
        """`most`: the limit of open connections. `errors` counts those that fail."""
        self.errors = errors
        self._refusing = 0
        """The number of connections that are being refused with an answer."""
        self._most = most
        self._peers: set[Peer] = set()

    async def serve(self, stream: trio.SocketStream, hypercorn: Hypercorn, errors: OneConnection) -> None:
        """Serve a connection to its end, or refuse it if there are too many."""
        if len(self._peers) >= self._most:
            await self._refuse(stream)
            return
        peer = Peer(stream, hypercorn, errors)
        self._peers.add(peer)
        try:
            await peer.run()
        finally:
            self._peers.discard(peer)

    def cut_off(self) -> None:
        """Close all connections at once, even those that are sending."""
        for peer in self._peers:
            peer.cut_off()

    async def _refuse(self, stream: trio.SocketStream) -> None:
        if self._refusing >= MOST_REFUSED:
            return
        self._refusing += 1
        try:
            with trio.move_on_after(REFUSAL_SECONDS), suppress(*GONE):
                await stream.send_all(REFUSAL % (len(TOO_MANY), TOO_MANY))
                await stream.send_eof()
                # If received data is unread at the close, the kernel resets the connection, and the answer
                # is lost.
                while await stream.receive_some():
                    pass
        finally:
            self._refusing -= 1


class Peer:
    """One connection, from its beginning to its end."""

    def __init__(self, stream: trio.SocketStream, hypercorn: Hypercorn, errors: OneConnection) -> None:
        self.wire = ClientWire(stream, hypercorn, errors)
        self._stream = stream
        self._hypercorn = hypercorn
        self._answering = trio.CancelScope()

    async def run(self) -> None:
        """Serve it until it ends."""
        with self.wire.ending.scope:
            async with self._hypercorn.tasks() as tasks:
                with suppress(OSError):  # The client has left already, so the socket has no peer address.
                    self.wire.conversation = self._hypercorn.converse(
                        tasks, self._stream.socket, {_PEER: self}, self.wire
                    )
                    tasks.spawn(self.wire.timer.run)
                    await self._read()
        await self.wire.close()

    async def _read(self) -> None:
        """Read until the client leaves."""
        conversation = self.wire.conversation
        try:
            with self.wire.reported(), suppress(*GONE):
                while data := await self._stream.receive_some(MOST_RECEIVED):
                    await conversation.receive(bytes(data))
        finally:
            # Nothing reads from the connection any more, so nothing else would end it.
            self.wire.ending.soon()
        await conversation.received_all()
        self.wire.timer.end()
        self._answering.cancel()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """A block in which an answer is made; it is cancelled when the client leaves."""
        with trio.CancelScope() as self._answering:
            yield

    async def send_frames(self, frames: bytes) -> None:
        """Send whole WebSocket frames in one call; does nothing if the WebSocket is not open any more."""
        if self.wire.conversation.takes_frames:
            await self.wire.send(frames)

    def cut_off(self) -> None:
        """Close the connection at once, even during a send."""
        self._stream.socket.close()
        self.wire.ending.soon(0.0)

    def become_stream(self) -> None:
        """Allow the client to leave data unread for longer. This costs little: no old prices are kept for it.

        Trio lets the kernel buffer at most 16 KiB beyond the client's receive window.
        """
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            with suppress(OSError):  # It may be closed already.
                self._stream.socket.setsockopt(
                    socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STREAM_UNREAD_TIMEOUT_MS
                )


def become_stream(scope: WWWScope) -> None:
    """Declare the answer to this request a stream, which lasts as long as the client stays."""
    peer = peer_of(scope)
    if peer is not None:  # there is none in a test without a server
        peer.become_stream()


def peer_of(scope: WWWScope) -> Peer | None:
    """The connection of a request; None in a test without a server."""
    state = cast("Mapping[str, Any]", scope.get("state", {}))
    return cast("Peer | None", state.get(_PEER))
