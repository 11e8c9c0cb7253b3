"""A plain WebSocket client for fake venues: it does nothing by itself but answer pings."""

from __future__ import annotations

import json
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import trio
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Opcode
from websockets.protocol import SEND_EOF, State
from websockets.uri import parse_uri

LIMIT = 20.0
"""Seconds that one message may take."""
HOURS = 100_000.0
"""The same on a virtual clock."""


class Closed(Exception):
    """The venue has closed the connection. Without a close the code is 1006."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Refused(Exception):
    """The venue has refused the connection."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Client:
    """One connection."""

    def __init__(
        self, stream: trio.abc.Stream, protocol: ClientProtocol, *, pongs: bool, limit: float
    ) -> None:
        self._stream = stream
        self._protocol = protocol
        self._pongs = pongs
        self._limit = limit
        self._messages: deque[bytes] = deque()
        self._partial = bytearray()
        self.channels: dict[int, str] = {}
        """The symbols of Bitfinex's channels."""
        self.pings = 0
        """Pings that have come."""
        self.pongs = 0
        self.frames = 0
        """Frames with data that have come."""

    @property
    def compressed(self) -> bool:
        return bool(self._protocol.extensions)

    async def send(self, *messages: object) -> None:
        """Send texts as they are, and other values as JSON."""
        for message in messages:
            text = message if isinstance(message, str) else json.dumps(message)
            self._protocol.send_text(text.encode())
        await self.flush()

    async def ping(self) -> None:
        self._protocol.send_ping(b"x")
        await self.flush()

    async def pong(self) -> None:
        """Send a pong that nobody has asked for."""
        self._protocol.send_pong(b"x")
        await self.flush()

    async def text(self) -> bytes:
        """The next message.

        Raises:
            Closed: the venue has closed the connection.
        """
        while not self._messages:
            await self._more()
        message = self._messages.popleft()
        if b'"chanId"' in message and b'"subscribed"' in message:
            answer = json.loads(message)
            self.channels[answer["chanId"]] = answer["symbol"]
        return message

    async def json(self) -> object:
        return json.loads(await self.text())

    async def quiet(self, seconds: float) -> list[bytes]:
        """The messages that come within so many seconds."""
        found = []
        with trio.move_on_after(seconds):
            while True:
                found.append(await self.text())
        return found

    async def closed(self) -> Closed:
        """Read until the venue closes the connection."""
        try:
            while True:
                await self.text()
        except Closed as closed:
            return closed

    async def flush(self) -> None:
        try:
            for data in self._protocol.data_to_send():
                if data != SEND_EOF:
                    await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the venue has gone; the next read tells why

    async def _more(self) -> None:
        if self._protocol.close_rcvd is not None:
            raise Closed(self._protocol.close_rcvd.code, self._protocol.close_rcvd.reason)
        try:
            with trio.fail_after(self._limit):
                data = await self._stream.receive_some(65_536)
        except trio.BrokenResourceError:
            data = b""
        if not data:
            raise Closed(1006, "")
        self._protocol.receive_data(data)
        for frame in self._protocol.events_received():
            self.pings += frame.opcode is Opcode.PING
            self.pongs += frame.opcode is Opcode.PONG
            if frame.opcode in {Opcode.TEXT, Opcode.CONT}:
                self.frames += 1
                self._partial += frame.data
                if frame.fin:
                    self._messages.append(bytes(self._partial))
                    self._partial.clear()
        if self._pongs or self._protocol.state is not State.OPEN:
            await self.flush()
        else:
            self._protocol.data_to_send()  # its pongs are thrown away


@asynccontextmanager
async def connected(
    url: str,
    *,
    trust: ssl.SSLContext | None = None,
    deflate: bool = False,
    pongs: bool = True,
    limit: float = LIMIT,
) -> AsyncIterator[Client]:
    """Connect to a venue.

    Args:
        url: for KuCoin one with a token.
        trust: for TLS.
        deflate: offer compression.
        pongs: answer pings.
        limit: seconds that one message may take.

    Raises:
        Refused: the venue has answered with another status than 101.
        Closed: it has ended the connection before the answer.
    """
    parts = urlsplit(url)
    async with await trio.open_tcp_stream(parts.hostname or "", parts.port or 0) as raw:
        stream: trio.abc.Stream = raw
        if parts.scheme == "wss":
            assert trust is not None
            stream = secure = trio.SSLStream(
                raw, trust, server_hostname=parts.hostname, https_compatible=True
            )
            await secure.do_handshake()
        extensions = [ClientPerMessageDeflateFactory()] if deflate else None
        protocol = ClientProtocol(parse_uri(url), extensions=extensions, max_size=64 * 1024 * 1024)
        protocol.send_request(protocol.connect())
        await stream.send_all(b"".join(protocol.data_to_send()))
        while protocol.state is State.CONNECTING:
            data = await stream.receive_some(1)
            if not data:
                raise Closed(1006, "")
            protocol.receive_data(data)
            for event in protocol.events_received():
                if event.status_code != 101:  # type: ignore[union-attr]
                    raise Refused(event.status_code)  # type: ignore[union-attr]
        yield Client(stream, protocol, pongs=pongs, limit=limit)


def _secure(raw: trio.SocketStream, trust: ssl.SSLContext) -> trio.SSLStream[trio.SocketStream]:
    return trio.SSLStream(raw, trust, server_hostname="127.0.0.1", https_compatible=True)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition is met."""
    with trio.fail_after(LIMIT):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await trio.sleep(0.01)


async def post(
    url: str, path: str, body: bytes = b"", trust: ssl.SSLContext | None = None
) -> tuple[int, bytes]:
    """POST; returns status and body."""
    parts = urlsplit(url)
    async with await trio.open_tcp_stream(parts.hostname or "", parts.port or 0) as raw:
        stream: trio.abc.Stream = raw
        if parts.scheme == "https":
            assert trust is not None
            stream = _secure(raw, trust)
        head = f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {len(body)}\r\n\r\n"
        await stream.send_all(head.encode())
        if body:
            await stream.send_all(body)
        answer = bytearray()
        while data := await stream.receive_some(65_536):
            answer += data
    head_, _, rest = bytes(answer).partition(b"\r\n\r\n")
    return int(head_.split()[1]), rest


async def endpoint(url: str, trust: ssl.SSLContext | None = None) -> str:
    """Where to connect: for a URL of HTTP, what KuCoin answers, with a token."""
    if not url.startswith("http"):
        return url
    status, body = await post(url, "/api/v1/bullet-public", trust=trust)
    assert status == 200
    data = json.loads(body)["data"]
    (server,) = data["instanceServers"]
    return f"{server['endpoint']}?token={data['token']}&connectId=abc"
