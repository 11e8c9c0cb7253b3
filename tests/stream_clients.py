"""Clients of the live stream on plain sockets, strict about the protocols thanks to h11."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import h11
import trio


@attrs.frozen
class Event:
    """One block of a stream of Server-Sent Events."""

    event: str | None
    id: int | None
    data: Any
    comments: Sequence[str] = ()
    retry: int | None = None


def parsed(block: str) -> Event:
    """A block by its lines; fields that no event of ours has are an error."""
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
    """A stream; `receive_buffer` (bytes) makes the kernel hold less of it than it would."""
    sock = trio.socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer)
    await sock.connect(("127.0.0.1", port))
    async with trio.SocketStream(sock) as stream:
        source = EventSource(stream)
        await source.open(target, headers, method)
        yield source
