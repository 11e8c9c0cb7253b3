"""WebSockets: frames, and a connection as quart-trio serves it, with some things put right."""

from __future__ import annotations

import struct
from typing import Any, Final, cast

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, WebsocketScope
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIWebsocketConnection

from marketflow.adapters.http.targets import origin_form
from marketflow.adapters.http.websocket_stream import FRAMES

PING: Final = b"\x89\x00"
GOING_AWAY: Final = 1001

_TEXT: Final = 0x81
_SHORT: Final = 125
_MEDIUM: Final = 0xFFFF


def text_frame(payload: bytes) -> bytes:
    """A message of UTF-8 text as one frame (RFC 6455). From a server it is the same for all clients."""
    length = len(payload)
    if length <= _SHORT:
        return struct.pack("!BB", _TEXT, length) + payload
    if length <= _MEDIUM:
        return struct.pack("!BBH", _TEXT, 126, length) + payload
    return struct.pack("!BBQ", _TEXT, 127, length) + payload


class WebSocketConnection(TrioASGIWebsocketConnection):
    """One WebSocket, from its handshake to its close."""

    def __init__(self, app: QuartTrio, scope: WebsocketScope) -> None:
        super().__init__(app, {**scope, "path": origin_form(scope["path"])})

    async def handle_messages(  # type: ignore[override]
        self, nursery: trio.Nursery, receive: ASGIReceiveCallable
    ) -> None:
        """Notice when the client leaves. What it says is of no interest.

        quart-trio would keep ten messages for somebody to read, and then notice nothing any more.
        """
        while (await receive())["type"] != "websocket.disconnect":
            pass
        nursery.cancel_scope.cancel()

    async def send_data(self, send: ASGISendCallable, data: str | bytes) -> None:
        """Send whole frames, many at once, where Quart would send one message."""
        await send(cast("Any", {"type": FRAMES, "frames": data}))
