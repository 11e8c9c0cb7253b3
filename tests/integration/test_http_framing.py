"""The end of a request: no two readers of the same bytes may find it in different places."""

from __future__ import annotations

import pytest
import trio
from test_http_fakes import eventually, serving

SMUGGLED = b"GET /mode HTTP/1.1\r\nHost: h\r\n\r\n"
"""Bytes that a proxy may have treated as part of the request before."""
CHUNKED = b"Transfer-Encoding: chunked\r\n"
EMPTY = b"\r\n0\r\n\r\n"

REFUSED = [
    ("conflicting lengths", b"Content-Length: 0\r\nContent-Length: 5\r\n\r\n"),
    ("a list of conflicting lengths", b"Content-Length: 0, 5\r\n\r\n"),
    ("a length with a sign", b"Content-Length: +0\r\n\r\n"),
    ("a negative length", b"Content-Length: -1\r\n\r\n"),
    ("a length in hexadecimal", b"Content-Length: 0x0\r\n\r\n"),
    ("a length with an underscore", b"Content-Length: 0_0\r\n\r\n"),
    ("no length", b"Content-Length: \r\n\r\n"),
    ("a length of other digits", b"Content-Length: \xd9\xa0\r\n\r\n"),
    ("a huge length", b"Content-Length: " + b"9" * 30 + b"\r\n\r\n"),
    ("a blank before the colon", b"Content-Length : 0\r\n\r\n"),
    ("a tab before the colon", b"Transfer-Encoding\t: chunked\r\n" + EMPTY),
    ("a header without a colon", b"Content-Length\r\n\r\n"),
    ("a header without a name", b": 0\r\n\r\n"),
    ("a bare CR in a value", b"X: a\rContent-Length: 5\r\n\r\n"),
    ("a bare CR at the end", b"X: a\r\r\n\r\n"),
    ("a NUL", b"X: a\0b\r\n\r\n"),
    ("a vertical tab", b"Transfer-Encoding: \x0bchunked\r\n" + EMPTY),
    ("an unknown coding", b"Transfer-Encoding: identity\r\n\r\n"),
    ("chunked twice", b"Transfer-Encoding: chunked, chunked\r\n" + EMPTY),
    ("chunked in two headers", CHUNKED * 2 + EMPTY),
    ("chunked and not last", b"Transfer-Encoding: chunked, gzip\r\n" + EMPTY),
    ("an unknown coding and a length", b"Transfer-Encoding: x\r\nContent-Length: 0\r\n\r\n"),
    ("two hosts", b"Host: h\r\n\r\n"),
    ("a chunk size in hexadecimal with 0x", CHUNKED + b"\r\n0x0\r\n\r\n"),
    ("a negative chunk size", CHUNKED + b"\r\n-1\r\n\r\n"),
    ("a chunk that ends with a bare LF", CHUNKED + b"\r\n0\n\n"),
    ("a bare LF in a chunk's extension", CHUNKED + b"\r\n0;a\nb\r\n\r\n"),
    ("a chunk that is longer than it says", CHUNKED + b"\r\n1\r\nab\r\n0\r\n\r\n"),
]
"""Headers, each behind a request line and a Host."""


async def answers(server, sent: bytes, *, within: float = 12.0) -> list[int]:
    """The statuses of all answers, until the end of the connection."""
    async with await server.connect() as client:
        await client.stream.send_all(sent)
        with trio.fail_after(within):
            answer = await client.read_to_end()
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize("headers", [each for _, each in REFUSED], ids=[name for name, _ in REFUSED])
async def test_a_request_whose_end_is_doubtful_is_refused(questions, headers):
    """Nothing that follows it is read."""
    async with serving(questions.app()) as server:
        head = b"POST /mode/test HTTP/1.1\r\nHost: h\r\n" + headers
        statuses = await answers(server, head + SMUGGLED)
        assert len(statuses) == 1
        assert statuses[0] in {400, 501}
    assert questions.modes.switches == []


@pytest.mark.parametrize("method", [b"GET /symbols", b"POST /symbols", b"GET /nowhere", b"HEAD /symbols"])
@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\n" + CHUNKED,
        CHUNKED + b"Content-Length: 5\r\n",
        CHUNKED + b"Content-Length: 0\r\nConnection: keep-alive\r\n",
        b"content-length: 5\r\ntransfer-ENCODING: Chunked\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding:\r\n chunked\r\n",
    ],
)
async def test_with_both_headers_it_is_answered_and_the_connection_closed(questions, method, headers):
    """RFC 9112, 6.1: Transfer-Encoding counts."""
    sent = method + b" HTTP/1.1\r\nHost: h\r\n" + headers + EMPTY
    async with serving(questions.app()) as server:
        assert len(await answers(server, sent + SMUGGLED)) == 1
        async with await server.connect() as client:
            await client.stream.send_all(sent)
            assert b"\r\nconnection: close\r\n" in (await client.read_to_end()).lower()


async def test_with_both_headers_a_web_socket_is_refused(questions):
    """Otherwise bytes that a proxy treats as the request's body would be read as frames."""
    handshake = (
        b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    async with serving(questions.app()) as server:
        assert await answers(server, handshake + CHUNKED + b"Content-Length: 5\r\n\r\n") == [400]
        assert await answers(server, handshake + CHUNKED + b"\r\n") == [400]
        assert await answers(server, handshake + b"Content-Length: 5\r\n\r\n") == [400]
        # The body may arrive together with the head: it is dropped.
        assert await answers(server, handshake + b"Content-Length: 5\r\n\r\nabcde") == [400]
        assert await answers(server, handshake + b"Sec-WebSocket-Protocol: \xff\r\n\r\nabcde") == [400]
        async with await server.connect() as client:
            metrics = (await client.get("/metrics")).body.decode()
            assert "marketflow_http_connection_errors_total 0.0" in metrics
    assert questions.stream.asked == []


async def test_http_1_0_is_closed_after_its_answer_whatever_it_says(questions):
    """HTTP/1.0 has no Transfer-Encoding. The bytes that follow may arrive before the answer is made."""
    async with serving(questions.app()) as server:
        sent = b"POST /symbols HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n" + CHUNKED + EMPTY
        assert await answers(server, sent + SMUGGLED) in ([405], [400])


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 2\r\n\r\n{}",
        b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        CHUNKED + b"\r\n2\r\n{}\r\n0\r\n\r\n",
        CHUNKED + b"\r\n2;an=extension\r\n{}\r\n0\r\nA: trailer\r\n\r\n",
        b"X: folded\r\n in two\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
async def test_what_is_in_order_keeps_its_connection(questions, headers):
    async with serving(questions.app()) as server, await server.connect() as client:
        await client.stream.send_all(b"POST /mode/test HTTP/1.1\r\nHost: 127.0.0.1\r\n" + headers)
        await eventually(lambda: questions.modes.switches == ["test"])
        answer = b""
        while b'{"mode"' not in answer:
            answer += await client.stream.receive_some()
        await client.stream.send_all(SMUGGLED)
        assert b"HTTP/1.1 200 " in await client.stream.receive_some()
