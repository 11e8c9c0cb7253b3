"""Clients of the live stream on plain sockets, strict about the protocols thanks to h11 and wsproto."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import h11
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate


@attrs.frozen
class Event:
    """One block of a stream of Server-Sent Events."""

    event: str | None
    id: int | None
    data: Any
    comments: Sequence[str] = ()
    retry: int | None = None


def parsed(block: str) -> Event:
    """A block of an event stream, from its lines; unknown fields are an error."""
    fields: dict[str, str] = {}
    comments = []
    for line in block.split("\n"):
        name, colon, value = line.partition(":")
        assert colon, block
        if name == "":
            comments.append(value.removeprefix(" "))
        else:
            assert name in {"event", "id", "data", "retry"}, block
            assert name not in fields, block
            fields[name] = value.removeprefix(" ")
    return Event(
        fields.get("event"),
        int(fields["id"]) if "id" in fields else None,
        json.loads(fields["data"]) if "data" in fields else None,
        comments,
        int(fields["retry"]) if "retry" in fields else None,
    )


async def connected(port: int, receive_buffer: int | None) -> trio.SocketStream:
    """A connection with a small receive buffer, so that the kernel holds at most so many unread bytes."""
    sock = trio.socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer)
    await sock.connect(("127.0.0.1", port))
    return trio.SocketStream(sock)


class EventSource:
    """A stream that was opened, or refused."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.status = 0
        self.headers: dict[str, str] = {}
        self.ended = False
        """Whether the answer has come to its proper end."""
        self._connection = h11.Connection(h11.CLIENT)
        self._text = ""

    async def open(self, target: str, headers: Sequence[tuple[str, str]], method: str) -> None:
        request = h11.Request(method=method, target=target, headers=[("Host", "127.0.0.1"), *headers])
        await self.stream.send_all(self._connection.send(request) + self._connection.send(h11.EndOfMessage()))
        head = await self._next()
        assert isinstance(head, h11.Response)
        self.status = head.status_code
        self.headers = {name.decode(): value.decode() for name, value in head.headers}

    async def _next(self) -> Any:
        while (event := self._connection.next_event()) is h11.NEED_DATA:
            self._connection.receive_data(await self.stream.receive_some())
        return event

    async def block(self) -> Event | None:
        """The next block of whatever kind, None at the end."""
        while "\n\n" not in self._text:
            if not await self._more():
                assert self._text == ""
                return None
        block, _, self._text = self._text.partition("\n\n")
        return parsed(block)

    async def _more(self) -> bool:
        match await self._next():
            case h11.Data(data=data):
                self._text += data.decode()
                return True
            case h11.EndOfMessage():
                self.ended = True
        return False

    async def body(self) -> str:
        """All that is left of an answer that ends by itself."""
        while await self._more():
            pass
        return self._text

    async def price(self) -> Event:
        """The next price."""
        while True:
            event = await self.block()
            assert event is not None
            if event.event == "price":
                return event

    async def prices(self, count: int) -> list[Event]:
        return [await self.price() for _ in range(count)]


@asynccontextmanager
async def event_source(
    port: int,
    target: str = "/stream",
    *,
    headers: Sequence[tuple[str, str]] = (),
    method: str = "GET",
    receive_buffer: int | None = None,
) -> AsyncIterator[EventSource]:
    """A stream; `receive_buffer` (bytes) makes the kernel buffer less of it."""
    async with await connected(port, receive_buffer) as stream:
        source = EventSource(stream)
        await source.open(target, headers, method)
        yield source


class Socket:
    """A WebSocket that was accepted or refused."""

    def __init__(self, stream: trio.SocketStream, *, compress: bool) -> None:
        self.stream = stream
        self.status = 0
        self.headers: dict[str, str] = {}
        self.answer = b""
        """The body of a refusal."""
        self.closed: tuple[int, str | None] | None = None
        """Code and reason of the server's close."""
        self.pings = 0
        self._connection = WSConnection(ConnectionType.CLIENT)
        self._extensions = [PerMessageDeflate()] if compress else []
        self._events: Iterator[Any] = iter(())

    async def open(self, target: str) -> None:
        request = Request("127.0.0.1", target, extensions=self._extensions)
        await self.send(request)
        match await self.next_event():
            case AcceptConnection() as accepted:
                self.status = 101
                assert accepted.extensions == []
            case RejectConnection() as rejected:
                self.status = rejected.status_code
                self.headers = {name.decode(): value.decode() for name, value in rejected.headers}
                while isinstance(event := await self.next_event(), RejectData):
                    self.answer += event.data
                    if event.body_finished:
                        break

    async def send(self, event: Any) -> None:
        await self.stream.send_all(self._connection.send(event))

    async def next_event(self) -> Any:
        while (event := next(self._events, None)) is None:
            data = await self.stream.receive_some()
            self._connection.receive_data(data or None)
            self._events = self._connection.events()
        return event

    async def message(self) -> Any:
        """The next message's JSON; None once the server has closed."""
        text = ""
        while True:
            match await self.next_event():
                case TextMessage() as message:
                    text += message.data
                    if message.message_finished:
                        return json.loads(text)
                case Ping() as ping:
                    self.pings += 1
                    await self.send(ping.response())
                case CloseConnection() as close:
                    self.closed = (close.code, close.reason)
                    if self._connection.state is not ConnectionState.CLOSED:
                        await self.send(close.response())
                    return None
                case other:
                    raise AssertionError(other)

    async def messages(self, count: int) -> list[Any]:
        return [await self.message() for _ in range(count)]

    async def close(self) -> None:
        """Close in an orderly way: send the close, and wait for the answer."""
        await self.send(CloseConnection(1000))
        while await self.message() is not None:
            pass


@asynccontextmanager
async def web_socket(
    port: int, target: str = "/ws", *, compress: bool = False, receive_buffer: int | None = None
) -> AsyncIterator[Socket]:
    """A WebSocket; `compress` offers compression, as browsers do."""
    async with await connected(port, receive_buffer) as stream:
        socket = Socket(stream, compress=compress)
        await socket.open(target)
        yield socket
