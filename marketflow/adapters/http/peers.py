"""Clients' connections: how many there are, and each from its beginning to its end."""

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
"""How long a client may leave what was sent to it unread before its connection is dropped."""
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
"""The answer to one connection too many, sent before it asks for anything."""
REFUSAL_SECONDS: Final = 0.5
"""How long that client has to read the answer."""
MOST_REFUSED: Final = 256
"""How many are answered so at a time; more are closed without an answer."""

_PEER: Final = "marketflow.peer"


class Peers:
    """The connections that are open."""

    def __init__(self, most: int, errors: ConnectionErrors) -> None:
        """`most`: how many there may be at a time. `errors` counts those that fail."""
        self.errors = errors
        self._refusing = 0
        """How many are being answered that they are too many."""
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
        """Close all of them at once, also those that are sending."""
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
                # If something is unread at the close, the kernel resets the connection: the answer is lost.
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
                with suppress(OSError):  # The client has left already: it has no address any more.
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
            # Nobody reads any more, so nothing else would notice that the connection should end.
            self.wire.ending.soon()
        await conversation.received_all()
        self.wire.timer.end()
        self._answering.cancel()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Lasts as long as an answer is made: it ends when the client leaves."""
        with trio.CancelScope() as self._answering:
            yield

    async def send_frames(self, frames: bytes) -> None:
        """Send whole WebSocket frames, however many; nothing if the WebSocket is not open any more."""
        if self.wire.conversation.takes_frames:
            await self.wire.send(frames)

    def cut_off(self) -> None:
        """Close the connection at once, also while something is being sent."""
        self._stream.socket.close()
        self.wire.ending.soon(0.0)

    def become_stream(self) -> None:
        """Be patient with a client that does not read. It holds little: old prices are not kept for it.

        Trio lets the kernel take no more than 16 KiB ahead of what the client's window has room for.
        """
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            with suppress(OSError):  # It may be closed already.
                self._stream.socket.setsockopt(
                    socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STREAM_UNREAD_TIMEOUT_MS
                )


def become_stream(scope: WWWScope) -> None:
    """The answer to this request is a stream: it goes on for as long as the client stays."""
    peer = peer_of(scope)
    if peer is not None:  # there is none in a test without a server
        peer.become_stream()


def peer_of(scope: WWWScope) -> Peer | None:
    """The connection that a request came by; None in a test without a server."""
    state = cast("Mapping[str, Any]", scope.get("state", {}))
    return cast("Peer | None", state.get(_PEER))
