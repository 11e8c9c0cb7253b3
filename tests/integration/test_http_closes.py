"""Closing a connection takes bounded time, with any behaviour of the client."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio
from hypercorn.protocol.ws_stream import WebsocketBuffer
from slow_machine import within
from stream_clients import connected
from test_http_fakes import TIME, eventually, serving

from marketflow.adapters.http.ending import CLOSE_TIMEOUT
from marketflow.app.answers import Latest, PriceEvent

WITHIN = CLOSE_TIMEOUT + 10.0
"""Seconds, with a margin for a busy machine. The limits of a client that does not read are 2 s and 60 s."""

HANDSHAKE = (
    b"GET %b HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
TEXT, BINARY, PING = 1, 2, 9


def frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """A client's frame, masked with zeros."""
    head = bytes([(0x80 if final else 0) | opcode])
    if len(payload) < 126:
        size = struct.pack("!B", 0x80 | len(payload))
    elif len(payload) < 65_536:
        size = struct.pack("!BH", 0x80 | 126, len(payload))
    else:
        size = struct.pack("!BQ", 0x80 | 127, len(payload))
    return head + size + bytes(4) + payload


async def reads(stream: trio.SocketStream) -> bytes:
    """Read until the end, and send nothing."""
    answer = b""
    with suppress(trio.BrokenResourceError):
        while part := await stream.receive_some():
            answer += part
    return answer


async def reads_slowly(stream: trio.SocketStream) -> bytes:
    """Read a byte now and then, so that the kernel never times out; then check that it has ended."""
    with suppress(trio.BrokenResourceError), trio.move_on_after(CLOSE_TIMEOUT + 1):
        while await stream.receive_some(1):  # noqa: ASYNC110 - it is a slow client
            await trio.sleep(0.05)
    return await reads(stream)


async def does_not_read(stream: trio.SocketStream) -> bytes:
    """Only a send shows that the connection has ended: it is then reset."""
    with suppress(trio.BrokenResourceError):
        while True:
            await stream.send_all(frame(PING, b""))
            await trio.sleep(0.1)
    return b""


async def goes_on_sending(stream: trio.SocketStream) -> bytes:
    """Send as much as the server takes."""
    with suppress(trio.BrokenResourceError):
        while True:
            await stream.send_all(frame(TEXT, b"x" * 60_000))
    return b""


CLIENTS = [reads, reads_slowly, does_not_read, goes_on_sending]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    "message",
    [
        frame(TEXT, b"x" * 20_000),
        frame(BINARY, b"x" * 20_000),
        frame(TEXT, b"x" * 10_000, final=False) + frame(0, b"x" * 10_000),
        frame(TEXT, b"x" * 10_000, final=False) * 2,
        frame(3, b"of no known kind"),
        frame(TEXT, b"\xff"),
        frame(8, b""),
        frame(8, b"x"),
        b"\x81\x01x",
    ],
    ids=["text", "binary", "parts", "two at once", "opcode", "UTF-8", "close", "bad close", "unmasked"],
)
async def test_a_web_socket_whose_client_is_closed(questions, message, client):
    """The server closes it for a message that is too large (1009) or invalid."""
    async with serving(questions.app()) as server, await server.connect() as it:
        await it.stream.send_all(HANDSHAKE % b"/ws")
        assert b" 101 " in await it.stream.receive_some()
        with trio.fail_after(WITHIN):
            await it.stream.send_all(message)
            await client(it.stream)
        await eventually(lambda: not questions.stream.clients)


async def test_a_message_too_large_is_answered_by_1009(questions):
    async with serving(questions.app()) as server, await server.connect() as it:
        await it.stream.send_all(HANDSHAKE % b"/ws")
        await it.stream.receive_some()
        await it.stream.send_all(frame(TEXT, b"x" * 20_000))
        assert await reads(it.stream) == b"\x88\x02" + struct.pack("!H", 1009)


@pytest.mark.parametrize("apart", [False, True])
async def test_a_client_that_answers_1009_is_not_waited_for(questions, apart):
    """Its close may come in the same packet as the message."""
    async with serving(questions.app()) as server, await server.connect() as it:
        await it.stream.send_all(HANDSHAKE % b"/ws")
        await it.stream.receive_some()
        close = frame(8, struct.pack("!H", 1009))
        with within(CLOSE_TIMEOUT / 2):
            await it.stream.send_all(frame(TEXT, b"x" * 20_000) + (b"" if apart else close))
            if apart:
                assert await it.stream.receive_some()
                await it.stream.send_all(close)
            await reads(it.stream)


async def test_after_1009_nothing_piles_up(questions, monkeypatch):
    """The rest of the message, and everything after it, is dropped."""
    extended = []
    extend = WebsocketBuffer.extend

    def counted(buffer, event):
        extended.append(len(event.data))
        extend(buffer, event)

    monkeypatch.setattr(WebsocketBuffer, "extend", counted)
    async with serving(questions.app()) as server, await server.connect() as it:
        await it.stream.send_all(HANDSHAKE % b"/ws")
        await it.stream.receive_some()
        with suppress(trio.BrokenResourceError):
            await it.stream.send_all(frame(TEXT, b"x" * 5_000_000))
        with trio.fail_after(WITHIN):
            await reads(it.stream)
    assert sum(extended) < 200_000


@pytest.mark.parametrize("client", [reads_slowly, does_not_read])
async def test_a_close_that_waits_behind_what_is_not_read(questions, client):
    """A stream allows a client 60 s without reading, a close does not."""
    event = PriceEvent(1, Latest("BTCUSDT", "x" * 60_000, 1.0, TIME, "memory"))
    async with serving(questions.app()) as server, await connected(server.port, 2_048) as stream:
        await stream.send_all(HANDSHAKE % b"/ws")
        await eventually(lambda: questions.stream.clients)
        for _ in range(50):
            questions.stream.tell(event)
        await trio.testing.wait_all_tasks_blocked(0.1)
        await stream.send_all(frame(TEXT, b"x" * 20_000))
        with trio.fail_after(WITHIN):
            await client(stream)


async def leaves_half(sent: bytes, stream: trio.SocketStream) -> None:
    """Send this, and close the sending side."""
    await stream.send_all(sent)
    await stream.send_eof()
    await reads(stream)


async def sends(sent: bytes, stream: trio.SocketStream) -> None:
    await stream.send_all(sent)
    await reads(stream)


@pytest.mark.parametrize("act", [sends, leaves_half])
@pytest.mark.parametrize(
    "sent",
    [
        b"GET /symbols HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        b"GET /symbols HTTP/1.0\r\nHost: h\r\n\r\n",
        b"GET /nowhere HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        HANDSHAKE % b"/nowhere",
        HANDSHAKE % b"/ws?symbol=NONE",
        (HANDSHAKE % b"/ws").replace(b"Version: 13", b"Version: 99"),
        HANDSHAKE % b"/ws" + frame(TEXT, b"too early"),
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=range(10),
)
async def test_a_connection_that_is_closed_after_its_answer(
    questions, sent, act: Callable[[bytes, trio.SocketStream], Awaitable[None]]
):
    async with serving(questions.app()) as server, await server.connect() as it:
        with trio.fail_after(WITHIN):
            await act(sent, it.stream)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /symbols HTTP/1.1\r\nHost: h\r\n\r\n" * 3,
        b"GET /prices/latest/BTCUSDT HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /stream HTTP/1.1\r\nHost: h\r\n\r\n",
        b"POST /mode/test HTTP/1.1\r\nHost: h\r\nContent-Length: 50\r\n\r\nhalf",
        HANDSHAKE % b"/ws",
        b"GET /symb",
        b"",
    ],
    ids=range(7),
)
@pytest.mark.parametrize("client", [reads, reads_slowly])
async def test_a_client_that_has_said_that_it_will_send_no_more(questions, sent, client):
    """Its answer may be endless, like a stream, and it may read it slowly."""
    questions.prices.hold = trio.Event()
    event = PriceEvent(1, Latest("BTCUSDT", "x" * 60_000, 1.0, TIME, "memory"))
    async with serving(questions.app()) as server, await connected(server.port, 2_048) as stream:
        await stream.send_all(sent)
        if sent.startswith((b"GET /stream", HANDSHAKE % b"/ws")):
            await eventually(lambda: questions.stream.clients)
            for _ in range(50):
                questions.stream.tell(event)
        await stream.send_eof()
        with trio.fail_after(WITHIN):
            await client(stream)
        await eventually(lambda: not questions.stream.clients)


async def test_a_stop_ends_a_client_that_reads_slowly(questions):
    """After the close 1001 it reads on slowly: the stop does not wait for it."""
    event = PriceEvent(1, Latest("BTCUSDT", "x" * 60_000, 1.0, TIME, "memory"))
    async with (
        serving(questions.app(), graceful_timeout=0.5) as server,
        await connected(server.port, 2_048) as stream,
        trio.open_nursery() as nursery,
    ):
        await stream.send_all(HANDSHAKE % b"/ws")
        await eventually(lambda: questions.stream.clients)
        for _ in range(50):
            questions.stream.tell(event)
        nursery.start_soon(reads_slowly, stream)
        questions.stream.end()
        server.stop.set()
        with within(CLOSE_TIMEOUT):
            await server.stopped.wait()
        nursery.cancel_scope.cancel()
