"""Clients' connections as Hypercorn serves them, with some things put right that it has no settings for."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, cast

import h11
import hypercorn.protocol.h11
import hypercorn.trio.run
import structlog
import trio
import wsproto.utilities
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Data, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WSStream
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.typing import ASGISendEvent, ConnectionState, WebsocketAcceptEvent, WWWScope
from wsproto.connection import ConnectionState as WebSocketState

from marketflow.adapters.http.idle import IdleTimer

UNREAD_TIMEOUT_MS: Final = 2_000
"""How long a client may leave what was sent to it unread before its connection is dropped."""
STREAM_UNREAD_TIMEOUT_MS: Final = 60_000
"""The same for a client of a stream: out of reach for a while, it is to go on with the newest after that."""

FRAMES: Final = "marketflow.frames"
"""The type of an ASGI message whose `frames` are whole WebSocket frames, written as they are."""

REFUSAL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nConnection: close\r\n"
    b"Retry-After: 1\r\nContent-Length: %d\r\n\r\n%b"
)
TOO_MANY: Final = (
    b'{"type":"about:blank","title":"Service Unavailable","status":503,'
    b'"detail":"the service has as many connections as http.max_connections, try again later"}'
)
"""What one connection too many is told, whatever it wants."""
REFUSAL_SECONDS: Final = 0.5
"""How long it has to read that."""
MOST_REFUSED: Final = 256
"""How many are told so at a time; more are closed without a word."""

_PEER: Final = "marketflow.peer"

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Peers:
    """The connections there are."""

    def __init__(self, most: int) -> None:
        """`most`: how many there may be at a time."""
        self.refusing = 0
        """How many are being told that they are too many."""
        self._most = most
        self._peers: set[Peer] = set()

    @property
    def full(self) -> bool:
        """Whether one more would be too many."""
        return len(self._peers) >= self._most

    def add(self, peer: Peer) -> None:
        """One has begun."""
        self._peers.add(peer)

    def discard(self, peer: Peer) -> None:
        """One has ended."""
        self._peers.discard(peer)

    def cut_off(self) -> None:
        """Close all of them, now, whatever they do."""
        for peer in self._peers:
            peer.cut_off()


class PeersConfig(Config):
    """Hypercorn's settings, and the connections that are served by them."""

    def __init__(self, peers: Peers) -> None:
        super().__init__()
        self.peers = peers


class Peer(TCPServer):
    """One connection, from its beginning to its end."""

    config: PeersConfig
    idle_task: IdleTimer  # type: ignore[assignment]
    _held: list[bytes] | None = None
    """What is to be sent in one go with what follows."""

    async def run(self) -> None:
        """Serve it, or refuse it if there are too many."""
        if self.config.peers.full:
            await self._refuse()
            return
        # What is here Hypercorn copies into the scope of each request.
        self.state = cast("ConnectionState", {**self.state, _PEER: self})
        self.config.peers.add(self)
        self._ended = trio.CancelScope()
        self._answering = trio.CancelScope()
        self._left = False
        self.idle_task = IdleTimer(
            patience=self.config.keep_alive_timeout,
            terminated=self.context.terminated,
            close=self._initiate_server_close,
        )
        try:
            # Not the nursery's own scope: Hypercorn's TaskGroup lets the cancellation out of it, and loose in
            # the nursery of all connections it would end the server.
            with self._ended:
                await super().run()
        except* (trio.BusyResourceError, h11.ProtocolError, wsproto.utilities.ProtocolError) as errors:
            # What Hypercorn makes of a client's nonsense is the end of that client, not of the service.
            log.warning("connection dropped", errors=[repr(error) for error in errors.exceptions])
        finally:
            self.config.peers.discard(self)

    async def protocol_send(self, event: Event) -> None:
        """Send; one that fails is the end of the connection.

        Hypercorn would go on waiting for the end of an answer, to read what the client has asked after it.
        """
        if self._held is not None:
            if isinstance(event, RawData):
                self._held.append(event.data)
                return
            await self.release()
        if isinstance(event, RawData):
            await self._write(event.data)
            return
        # A client that has left is not idle: a timer begun now would keep its place for nobody.
        if not (isinstance(event, Updated) and self._left):
            await super().protocol_send(event)

    def hold(self) -> None:
        """Keep what is to be sent until `release`, to send it in one go: a send is a tenth of an answer."""
        self._held = []

    async def release(self) -> None:
        """Send what was kept."""
        held, self._held = self._held, None
        await self._write(b"".join(held or ()))

    async def _write(self, data: bytes) -> None:
        if not data:  # the end of an answer that has told its length
            return
        async with self.send_lock:
            try:
                with trio.CancelScope(shield=True):
                    await self.stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                await self.protocol.handle(Closed())
                self.leave()

    async def _close(self) -> None:
        """Close it, when what is being sent was sent: Hypercorn's two tasks do not wait for each other."""
        async with self.send_lock:
            await super()._close()

    async def _read_data(self) -> None:
        """Read until the client leaves. Hypercorn would then wait for the idle timer to run out."""
        await super()._read_data()
        self._left = True
        self.idle_task.end()
        self._answering.cancel()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Lasts as long as an answer is made: it ends when the client leaves."""
        with trio.CancelScope() as self._answering:
            yield

    async def _refuse(self) -> None:
        peers = self.config.peers
        if peers.refusing >= MOST_REFUSED:
            await trio.aclose_forcefully(self.stream)
            return
        peers.refusing += 1
        try:
            await self._tell_too_many()
        finally:
            peers.refusing -= 1

    async def _tell_too_many(self) -> None:
        with (
            trio.move_on_after(REFUSAL_SECONDS),
            suppress(trio.BrokenResourceError, trio.ClosedResourceError),
        ):
            await self.stream.send_all(REFUSAL % (len(TOO_MANY), TOO_MANY))
            await self.stream.send_eof()
            # Closed with something unread, the kernel would reset it, and what it was told be lost.
            while await self.stream.receive_some():
                pass
        await trio.aclose_forcefully(self.stream)

    def cut_off(self) -> None:
        """Close it. Hypercorn shields its sends, even from a cancellation: nothing less ends one."""
        self.stream.socket.close()

    def leave(self) -> None:
        """End it, once what was sent is on its way."""
        self._ended.cancel()

    def become_stream(self) -> None:
        """Be patient with a client that does not read. It holds little: what gets old is not kept for it.

        Trio lets the kernel take no more than 16 KiB ahead of what the client's window has room for.
        """
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            self.stream.socket.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STREAM_UNREAD_TIMEOUT_MS
            )


def become_stream(scope: WWWScope) -> None:
    """The answer to this request is a stream: it goes on for as long as the client stays."""
    peer = peer_of(scope)
    if peer is not None:  # there is none in a test without a server
        peer.become_stream()


def peer_of(scope: WWWScope) -> Peer | None:
    """The connection that a request came by; None in a test without a server."""
    return cast("Peer | None", cast("dict[str, Any]", scope.get("state", {})).get(_PEER))


class WebSocket(WSStream):
    """A WebSocket that sends whole frames, many at once, and never compresses.

    Compression costs 300 KB and more time than all else for each client, and a message of 64 KiB could unfold
    to 64 MiB.
    """

    async def handle(self, event: StreamEvent) -> None:
        """Take what the client sends. Hypercorn refuses a bad handshake, and then waits for ever."""
        if isinstance(event, Data) and not self.handshake.accepted:
            # It must not send before it is let in. Refused by Hypercorn while the application answers, there
            # would be two answers at once.
            self.closed = True
        else:
            await super().handle(event)
        if self.closed and not self.handshake.accepted and not isinstance(event, StreamClosed):
            peer = peer_of(self.scope)
            if peer is not None:
                peer.leave()

    async def app_send(self, message: ASGISendEvent | None) -> None:
        """Take what the application sends."""
        if message is None or cast("dict[str, Any]", message)["type"] != FRAMES:
            await super().app_send(message)
        elif self.closed or self.state != ASGIWebsocketState.CONNECTED:
            return
        elif self.connection.state is WebSocketState.OPEN:
            await self.send(Data(self.stream_id, cast("dict[str, Any]", message)["frames"]))
        else:
            # Hypercorn has refused a message that was too large, and the client has not left since.
            await self.send(StreamClosed(self.stream_id))

    async def _accept(self, message: WebsocketAcceptEvent) -> None:
        self.handshake.extensions = None
        await super()._accept(message)


async def _stay_with_http_1(_: H11Protocol, _request: h11.Request) -> None:
    """Ignore offers of HTTP/2, as a server may."""


# Without TLS nobody needs HTTP/2, and there Hypercorn forgets its idle timer: a connection without a request
# is never closed, and holds a stop for the whole of `graceful_timeout`.
H11Protocol._check_protocol = _stay_with_http_1  # type: ignore[assignment,method-assign] # noqa: SLF001
hypercorn.protocol.h11.WSStream = WebSocket  # type: ignore[attr-defined]
hypercorn.trio.run.TCPServer = Peer  # type: ignore[attr-defined]
