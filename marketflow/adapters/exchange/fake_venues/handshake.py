"""The beginning of a connection: plain HTTP, or the opening handshake of the WebSocket protocol."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

import h11
import trio
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from marketflow.adapters.exchange.fake_venues.protocol import Session

if TYPE_CHECKING:
    from websockets.http11 import Response

    from marketflow.adapters.exchange.fake_venues.floor import Floor

HEAD_LIMIT: Final = 64 * 1024
"""Bytes of a request's head."""
MESSAGE_LIMIT: Final = 256 * 1024
"""Bytes of a message of a client."""
RECEIVE: Final = 65_536
AFTER_NOTICE: Final = 60.0
"""Seconds in which the limit of attempts after a maintenance holds."""


async def shake_hands(stream: trio.abc.Stream, floor: Floor) -> tuple[ServerProtocol, Session] | None:
    """Answer the first request. None: it was answered without opening a WebSocket."""
    head = await _head(stream)
    if head.startswith(b"POST "):
        await _answer_post(stream, floor, head)
        return None
    protocol = _protocol(floor)
    protocol.receive_data(head)
    session = Session(0, {})
    for event in protocol.events_received():
        if isinstance(event, Request):
            path, _, query = event.path.partition("?")
            session = Session(floor.count + 1, dict(parse_qsl(query)))
            response = _refused(protocol, floor, path, session) or protocol.accept(event)
            protocol.send_response(response)
    opened = protocol.state is State.OPEN
    floor.count += opened
    await stream.send_all(b"".join(protocol.data_to_send()))
    return (protocol, session) if opened else None


async def _head(stream: trio.abc.Stream) -> bytes:
    """The head of a request, with what came behind it; less if the client leaves."""
    head = bytearray()
    while b"\r\n\r\n" not in head and len(head) <= HEAD_LIMIT:
        data = await stream.receive_some(RECEIVE)
        if not data:
            break
        head += data
    return bytes(head)


def _protocol(floor: Floor) -> ServerProtocol:
    deflate = [ServerPerMessageDeflateFactory(compress_settings={"memLevel": 5})]
    return ServerProtocol(
        extensions=deflate if floor.faults.deflate else None,
        max_size=MESSAGE_LIMIT,
        logger=logging.Logger(__name__, logging.CRITICAL),  # noqa: LOG001 - it is silent, and ours alone
    )


def _refused(protocol: ServerProtocol, floor: Floor, path: str, session: Session) -> Response | None:
    """The answer to a client that is refused."""
    now = trio.current_time()
    excess = floor.attempts.excess(now)
    if now < floor.noticed_at + AFTER_NOTICE:
        excess = excess or floor.attempts_after_notice.excess(now)
    if excess:
        floor.violations.append(f"connections: {excess}")
    if excess or floor.rng.random() < floor.faults.refused:
        return protocol.reject(HTTPStatus.TOO_MANY_REQUESTS, "too many connections\n")
    if path != floor.kind.rules.path:
        floor.violations.append(f"connection to {path}, which is not {floor.kind.rules.path}")
        return protocol.reject(HTTPStatus.NOT_FOUND, "there is nothing here\n")
    if reason := floor.kind.refusal(session.query):
        floor.violations.append(f"connection refused: {reason}")
        return protocol.reject(HTTPStatus.UNAUTHORIZED, f"{reason}\n")
    return None


async def _answer_post(stream: trio.abc.Stream, floor: Floor, head: bytes) -> None:
    """Answer an HTTP POST.

    Raises:
        h11.RemoteProtocolError: it is no good request.
    """
    http = h11.Connection(h11.SERVER)
    http.receive_data(head)
    request = None
    while not isinstance(event := http.next_event(), h11.EndOfMessage):
        if isinstance(event, h11.Request):
            request = event
        elif event is h11.NEED_DATA:
            http.receive_data(bytes(await stream.receive_some(RECEIVE)))
    if request is None:
        return
    address = dict(request.headers).get(b"host", b"").decode("latin-1")
    body, status = None, HTTPStatus.NOT_FOUND
    if floor.rng.random() < floor.faults.refused:
        status = HTTPStatus.TOO_MANY_REQUESTS
    else:
        secure = isinstance(stream, trio.SSLStream)
        body = floor.kind.post(request.target.decode("latin-1"), address, secure=secure)
        status = HTTPStatus.NOT_FOUND if body is None else HTTPStatus.OK
    body = body or b"{}"
    response = h11.Response(
        status_code=status.value,
        reason=status.phrase.encode(),
        headers=[
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ],
    )
    events = (response, h11.Data(data=body), h11.EndOfMessage())
    await stream.send_all(b"".join(http.send(each) or b"" for each in events))
