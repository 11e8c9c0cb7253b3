"""The little HTTP/1.1 that comes before a WebSocket: a tunnel through a proxy, and a POST for a token."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

import h11
import trio

from marketflow import __version__
from marketflow.adapters.exchange.websocket.proxy import Proxy

USER_AGENT: Final = f"marketflow/{__version__}"
MOST_BODY: Final = 65_536
"""Bytes of an answer; a token comes with 1 KB."""

_READ: Final = 16_384
_SUCCESS: Final = range(200, 300)


async def tunnel(stream: trio.abc.Stream, proxy: Proxy, authority: str) -> None:
    """Ask a proxy for a tunnel to `authority` (host and port). Then the stream leads there.

    Raises:
        OSError: the proxy refuses.
    """
    headers = [("Host", authority), ("User-Agent", USER_AGENT)]
    if proxy.authorization is not None:
        headers.append(("Proxy-Authorization", proxy.authorization))
    http = h11.Connection(h11.CLIENT)
    answer = await _answer(stream, http, "CONNECT", authority, headers)
    if answer.status_code not in _SUCCESS:
        raise ConnectionError(f"the proxy answered {status_text(answer.status_code)}")
    if http.trailing_data[0]:
        raise ConnectionError("the proxy sent more than its answer")


async def post(stream: trio.abc.Stream, authority: str, target: str) -> bytes:
    """POST nothing to `target`, on a connection for this one request. Returns the body of the answer.

    Raises:
        OSError: the answer is no success, or its body is longer than `MOST_BODY`.
    """
    headers = [
        ("Host", authority),
        ("User-Agent", USER_AGENT),
        ("Accept", "application/json"),
        ("Content-Length", "0"),
        ("Connection", "close"),
    ]
    http = h11.Connection(h11.CLIENT)
    answer = await _answer(stream, http, "POST", target, headers)
    if answer.status_code not in _SUCCESS:
        raise ConnectionError(f"the request for a token was answered {status_text(answer.status_code)}")
    body = bytearray()
    while isinstance(event := await _next(stream, http), h11.Data):
        body += event.data
        if len(body) > MOST_BODY:
            raise ConnectionError("the answer to the request for a token is too long")
    return bytes(body)


def status_text(code: int) -> str:
    """A status with its usual words: the server's own may be anything."""
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)


async def _answer(
    stream: trio.abc.Stream,
    http: h11.Connection,
    method: str,
    target: str,
    headers: Sequence[tuple[str, str]],
) -> h11.Response:
    try:
        request = h11.Request(method=method, target=target, headers=list(headers))
    except h11.LocalProtocolError as error:
        raise ConnectionError(f"not an address: {error}") from error
    parts: Sequence[h11.Event] = (request, h11.EndOfMessage())
    await stream.send_all(b"".join([http.send(each) or b"" for each in parts]))
    while not isinstance(event := await _next(stream, http), h11.Response):
        pass  # an interim answer (1xx): the final one follows
    return event


async def _next(stream: trio.abc.Stream, http: h11.Connection) -> object:
    try:
        while (event := http.next_event()) is h11.NEED_DATA:
            http.receive_data(bytes(await stream.receive_some(_READ)))
    except h11.RemoteProtocolError as error:
        raise ConnectionError(f"no HTTP answer: {error}") from error
    return event
