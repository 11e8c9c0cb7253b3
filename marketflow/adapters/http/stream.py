"""/stream and /ws: the live stream as Server-Sent Events and as WebSocket messages."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from functools import lru_cache
from typing import Any, Final, Self, cast

import trio
from quart import Blueprint, request, websocket
from quart.wrappers import Response
from quart.wrappers.response import ResponseBody
from quart_trio.wrappers import TrioResponse

from marketflow.adapters.http.asgi import CLOSING
from marketflow.adapters.http.parameters import asked_names, parameters
from marketflow.adapters.http.peers import become_stream, peer_of
from marketflow.adapters.http.problem import problem
from marketflow.adapters.http.responses import encoded
from marketflow.adapters.http.websockets import GOING_AWAY, PING, text_frame
from marketflow.app.answers import PriceEvent
from marketflow.app.interface import StreamQuestions, Subscription

RETRY_MS: Final = 1_000
"""How long a browser waits before it connects again."""

_BEGINNING: Final = b"retry: %d\n\n" % RETRY_MS
_HEARTBEAT: Final = b": heartbeat\n\n"
_EVENTS_KEPT: Final = 2_048
"""The number of encoded events in the cache. Only the newest of each pair matter; all take less than 1 MB."""

_PARAMETERS: Final = ("symbol", "exchange")
_LINGER: Final = 1.0
"""Seconds that a WebSocket's client has to answer our close."""

_ID: Final = re.compile(r"[0-9]{1,19}")


def stream_routes(stream: StreamQuestions) -> Blueprint:
    """The routes of the live stream."""
    routes = Blueprint("stream", __name__)
    # Each event is encoded once for all clients.
    block, frame = lru_cache(_EVENTS_KEPT)(_block), lru_cache(_EVENTS_KEPT)(_frame)

    @routes.get("/stream")
    async def events() -> Response:
        given = parameters(request.args.items(multi=True), _PARAMETERS)
        asked = stream.subscribed(*asked_names(given), _last_event_id())
        closing: ExitStack = cast("Any", request.scope)[CLOSING]
        subscription = closing.enter_context(asked)
        body: bytes | _Events = b""
        if request.method != "HEAD":
            become_stream(request.scope)
            body = _Events(subscription, block)
        response = TrioResponse(body, content_type="text/event-stream")
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Accel-Buffering"] = "no"  # otherwise nginx buffers events
        response.timeout = None
        return response

    @routes.websocket("/ws")
    async def messages() -> None:
        given = parameters(websocket.args.items(multi=True), _PARAMETERS)
        with stream.subscribed(*asked_names(given), None) as subscription:
            become_stream(websocket.scope)
            await websocket.accept()
            while (events := await subscription.receive()) is not None:
                await _send(b"".join(map(frame, events)) or PING)
            await websocket.close(GOING_AWAY, "the service is stopping")
            # If we closed before the client's answer is read, the connection would be reset, and our close
            # frame could be lost.
            await trio.sleep(_LINGER)

    @routes.get("/ws")
    async def no_websocket() -> Response:
        return problem(
            "upgrade-required",
            "this is a WebSocket: connect to it with a WebSocket client",
            headers={"Upgrade": "websocket", "Connection": "Upgrade"},
        )

    return routes


async def _send(frames: bytes) -> None:
    """Send WebSocket frames in one call. Quart and Hypercorn would use a call of the same cost for each."""
    peer = peer_of(websocket.scope)
    if peer is not None:  # there is none in a test without a server
        await peer.send_frames(frames)


def _last_event_id() -> int | None:
    """The id of the last event that a reconnecting client got; None if it sent none or an invalid one."""
    presented = request.headers.get("Last-Event-Id", "")
    return int(presented) if _ID.fullmatch(presented) else None


def _block(event: PriceEvent) -> bytes:
    return b"event: price\nid: %d\ndata: %s\n\n" % (event.id, encoded(event.latest))


def _frame(event: PriceEvent) -> bytes:
    return text_frame(encoded(event.latest))


class _Events(ResponseBody):
    """A response's body: all new events in one write, then a wait for more."""

    def __init__(self, subscription: Subscription, block: Callable[[PriceEvent], bytes]) -> None:
        self._subscription = subscription
        self._block = block
        self._begun = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """No-op: the subscription belongs to the request."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._begun:
            self._begun = True
            return _BEGINNING
        events = await self._subscription.receive()
        if events is None:
            raise StopAsyncIteration
        return b"".join(map(self._block, events)) or _HEARTBEAT
