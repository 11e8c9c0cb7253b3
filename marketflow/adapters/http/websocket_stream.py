"""WebSockets as Hypercorn serves them, with some things put right that it has no settings for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

from hypercorn.protocol.events import Data, EndBody, Request, Response, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WSStream
from hypercorn.typing import ASGISendEvent, WebsocketAcceptEvent
from wsproto.connection import ConnectionState as WebSocketState
from wsproto.events import CloseConnection

from marketflow.adapters.http.peers import Peer, peer_in

FRAMES: Final = "marketflow.frames"
"""The type of an ASGI message whose `frames` are whole WebSocket frames, written as they are."""

_BAD_REQUEST: Final = 400


class WebSocket(WSStream):
    """A WebSocket that sends whole frames, many at once, and never compresses.

    Compression costs 300 KB and more time than all else for each client, and a message of 64 KiB could unfold
    to 64 MiB.

    Each close ends the TCP connection, too, within `ending.CLOSE_TIMEOUT`: also when the client does not
    answer the close, or does not read.
    """

    _peer: Peer | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._send_on, self.send = self.send, self._send

    async def handle(self, event: StreamEvent) -> None:
        """Take what the client sends. What comes after a refused handshake is dropped."""
        if self.closed:
            return
        if isinstance(event, Request):
            await self._begin(event)
        elif isinstance(event, Data) and not self.handshake.accepted:
            # It must not send before it is let in. Refused by Hypercorn while the application answers, there
            # would be two answers at once.
            self.closed = True
            self._leave()
        elif isinstance(event, Data) and self.connection.state is WebSocketState.LOCAL_CLOSING:
            await self._await_close(event.data)
        else:
            await super().handle(event)
            if isinstance(event, Data) and self.connection.state is WebSocketState.LOCAL_CLOSING:
                # The message was too large. The client's own close may have come right behind it.
                await self._await_close(b"")

    async def _begin(self, request: Request) -> None:
        """Begin the handshake, or refuse it; Hypercorn would then wait for ever."""
        self._peer = peer_in(cast("dict[str, Any]", request.state))
        if not _is_plain(request.headers) or _has_body(request.headers):
            self.closed = True
            refusal = [(b"content-length", b"0"), (b"connection", b"close")]
            await self.send(Response(self.stream_id, refusal, _BAD_REQUEST))
            await self.send(EndBody(self.stream_id))
        else:
            await super().handle(request)
        if self.closed:
            self._leave()

    async def _await_close(self, data: bytes) -> None:
        """Read on for the client's answer to our close. Its messages are dropped: nothing piles up."""
        if not self.closed:
            self.connection.receive_data(data)
            if any(isinstance(each, CloseConnection) for each in self.connection.events()):
                await self.send(StreamClosed(self.stream_id))

    def _leave(self) -> None:
        if self._peer is not None:
            self._peer.leave()

    async def _send(self, event: StreamEvent) -> None:
        """Pass on what is for the client. With a close frame the time begins in which it has to end."""
        closes = isinstance(event, Data) and self.connection.state is not WebSocketState.OPEN
        if closes and self._peer is not None:
            self._peer.ending.soon()
        await self._send_on(event)

    async def app_send(self, message: ASGISendEvent | None) -> None:
        """Take what the application sends."""
        if message is None or cast("dict[str, Any]", message)["type"] != FRAMES:
            await super().app_send(message)
        elif (
            not self.closed
            and self.state == ASGIWebsocketState.CONNECTED
            # Else a close has been sent, and no frame may follow one.
            and self.connection.state is WebSocketState.OPEN
        ):
            await self.send(Data(self.stream_id, cast("dict[str, Any]", message)["frames"]))

    async def _accept(self, message: WebsocketAcceptEvent) -> None:
        self.handshake.extensions = None
        await super()._accept(message)


def _is_plain(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether what Hypercorn reads of a handshake is ASCII: it fails on anything else."""
    return all(
        value.isascii()
        for name, value in headers
        if name.lower() in {b"connection", b"upgrade"} or name.lower().startswith(b"sec-websocket-")
    )


def _has_body(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether a body is to follow the handshake. A proxy would take for that body what we take for frames."""
    given = {name.lower(): value for name, value in headers}
    return b"transfer-encoding" in given or given.get(b"content-length", b"").strip(b"0") != b""
