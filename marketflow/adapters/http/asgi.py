"""The ASGI side of Quart's application: a request in, the parts of its answer out.

Quart allows this class to be replaced (`asgi_http_class`). quart-trio's own class opens a nursery with two
tasks for each request; one of them receives a body, which most requests do not have. That is a tenth of the
cost of an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import Any, Final, cast

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGIReceiveEvent, ASGISendCallable, ASGISendEvent, HTTPScope
from quart import Quart, Request, Response
from quart.utils import encode_headers
from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response as WerkzeugResponse

from marketflow.adapters.http.peers import peer_of

CLOSING: Final = "marketflow.closing"
"""The key in a request's ASGI scope of an ExitStack, which is closed when the request ends."""
LINGER: Final = 1.0
"""Seconds for which the body of a request is still read after its answer."""


class HttpRequest:
    """One request, from its head to the end of its answer. Fills Quart's `ASGIHTTPProtocol`."""

    def __init__(self, app: Quart, scope: HTTPScope) -> None:
        self._app = app
        self._scope = scope
        self._body_received = trio.Event()
        self._peer = peer_of(scope)

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer the request."""
        send = partial(self._send, send)
        with ExitStack() as closing:
            request = self._request({**self._scope, CLOSING: closing})
            if self._peer is None or self._headers(b"content-length", b"transfer-encoding"):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._receive, request, receive, nursery.cancel_scope)
                    await self._answer(request, send)
                    nursery.cancel_scope.cancel()
            else:
                # Without a body there is nothing to receive. The connection's reader notices a disconnect.
                request.body.set_complete()
                self._body_received.set()
                with self._peer.answering():
                    await self._answer(request, send)

    def _request(self, scope: Mapping[str, Any]) -> Request:
        headers = Headers(
            [(name.decode("latin1").title(), value.decode("latin1")) for name, value in scope["headers"]]
        )
        headers["Remote-Addr"] = (scope.get("client") or ["<local>"])[0]
        if scope["http_version"] < "1.1":
            headers.setdefault("Host", "")  # HTTP/1.0 does not ask for it
        return self._app.request_class(
            scope["method"],
            scope["scheme"],
            scope["path"],
            scope["query_string"],
            headers,
            scope.get("root_path", ""),
            scope["http_version"],
            cast("HTTPScope", scope),
            max_content_length=self._app.config["MAX_CONTENT_LENGTH"],
            body_timeout=self._app.config["BODY_TIMEOUT"],
            send_push_promise=_no_push,
        )

    async def _receive(self, request: Request, receive: ASGIReceiveCallable, scope: trio.CancelScope) -> None:
        """Receive the body. If the client leaves, the request is cancelled."""
        while True:
            event: ASGIReceiveEvent = await receive()
            if event["type"] == "http.disconnect":
                scope.cancel()
                return
            if event["type"] == "http.request":
                request.body.append(event.get("body", b""))
                if not event.get("more_body", False):
                    request.body.set_complete()
                    self._body_received.set()

    async def _answer(self, request: Request, send: ASGISendCallable) -> None:
        response = await self._app.handle_request(request)
        timeout = self._app.config["RESPONSE_TIMEOUT"]
        if isinstance(response, Response) and response.timeout is not Ellipsis:
            timeout = response.timeout
        with nullcontext() if timeout is None else trio.move_on_after(timeout):
            await _send_response(response, send)

    def _headers(self, *names: bytes) -> set[bytes]:
        """Which of these headers the request has."""
        return {name for name, _ in self._scope["headers"]}.intersection(names)

    async def _send(self, send: ASGISendCallable, event: ASGISendEvent) -> None:
        if event["type"] == "http.response.start":
            if len(self._headers(b"content-length", b"transfer-encoding")) > 1:
                # RFC 9112, 6.1: h11 uses Transfer-Encoding, but a proxy may use Content-Length. They then
                # disagree about where the next request begins, so the connection ends after this one.
                event["headers"] = [*event["headers"], (b"connection", b"close")]
            if self._peer is not None and any(name == b"content-length" for name, _ in event["headers"]):
                self._peer.wire.hold()
        if event["type"] != "http.response.body" or event["more_body"]:
            await send(event)
            return
        # If the body is not complete by now, Hypercorn closes the connection. If bytes then still arrive, the
        # kernel resets it, and the client would lose an answer such as 405 or 413. So read on for a moment.
        if not self._body_received.is_set():
            if self._peer is not None:
                await self._peer.wire.release()
            with trio.move_on_after(LINGER):
                await self._body_received.wait()
        # At the end of the answer Hypercorn reports a disconnect, which cancels this request. Without the
        # shield that could happen before the connection is marked as idle, and it would stay open for ever.
        with nullcontext() if self._peer is None else self._peer.wire.ending.shielded():
            if self._peer is not None:
                await self._peer.wire.release()
            await send(event)


async def _send_response(response: Response | WerkzeugResponse, send: ASGISendCallable) -> None:
    head = {
        "type": "http.response.start",
        "status": response.status_code,
        "headers": encode_headers(response.headers),
    }
    await send(cast("Any", head))
    if isinstance(response, WerkzeugResponse):
        for part in response.response:
            await _send_body(part, send)
    else:
        async with response.response as body:
            async for part in body:
                await _send_body(part, send)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_body(part: str | bytes, send: ASGISendCallable) -> None:
    data = part.encode() if isinstance(part, str) else part
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _no_push(path: str, headers: Headers) -> None:
    """HTTP/1.1 has no push."""


async def without_messages(receive: ASGIReceiveCallable) -> ASGIReceiveEvent:
    """The next event of a WebSocket. Messages of the client are skipped, since no route reads them.

    quart-trio keeps ten messages for the route, and does not notice a disconnect while that queue is full.
    """
    while (event := await receive())["type"] == "websocket.receive":
        pass
    return event
