"""Makes a WebSocket: TCP, the proxy's tunnel, TLS, and the handshake, all within one time limit.

```
 TCP ──> CONNECT, if there is a proxy ──> TLS, if the URL says so ──┬──> POST for a token
                                                                    └──> WebSocket handshake ──> Connection
```
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar
from urllib.parse import urlsplit

import attrs
import trio
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus, InvalidURI
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.uri import WebSocketURI, parse_uri

from marketflow.adapters.exchange.dialing import open_tcp
from marketflow.adapters.exchange.pacing import Pace
from marketflow.adapters.exchange.websocket.errors import reason_of
from marketflow.adapters.exchange.websocket.plain_http import USER_AGENT, post, status_text, tunnel
from marketflow.adapters.exchange.websocket.proxy import Proxy
from marketflow.adapters.exchange.websocket.tls import TlsStream
from marketflow.patience import within

T = TypeVar("T")

MOST_MESSAGE: Final = 2**20
"""Bytes of a message; a larger one ends the connection."""

_DEFAULT_PORTS: Final = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_SECURE: Final = ("https", "wss")
_ACCEPTED: Final = b"HTTP/1.1 101 "
_END_OF_HEAD: Final = b"\r\n\r\n"
_QUIET: Final = logging.Logger("websockets", logging.CRITICAL)  # noqa: LOG001 - its level is not inherited
"""The library would format each frame if the level of the root logger were that of debug."""


@attrs.frozen
class Opened:
    """A WebSocket after its handshake. The stream is the receiver's to close."""

    stream: trio.abc.Stream
    protocol: ClientProtocol
    early: bytes
    """What came together with the answer to the handshake."""


@attrs.frozen
class Opener:
    """Makes connections, the same way to every exchange."""

    proxy: Proxy | None = None
    tls: ssl.SSLContext = attrs.field(factory=ssl.create_default_context, repr=False)
    """By default with the system's certificates."""
    connect_timeout: float = 10.0
    """Seconds for all steps together."""
    connect: Callable[[str, int], Awaitable[trio.abc.Stream]] = attrs.field(default=open_tcp, repr=False)
    """Makes the TCP connection to a host and port."""
    pace: Pace = attrs.field(factory=Pace, repr=False)
    """When the connections that it makes are read. By default there are no pauses."""

    async def open(self, url: str) -> Opened:
        """A WebSocket to `url`. Redirects are not followed.

        Raises:
            OSError: there is none, and why.
        """
        try:
            uri = parse_uri(url)
        except (InvalidURI, ValueError) as error:
            raise OSError("not the URL of a WebSocket") from error
        return await self._in_time(url, partial(self._shaken_hands, uri))

    async def post(self, url: str) -> bytes:
        """The body of the answer to a POST to an `http` or `https` URL.

        Raises:
            OSError: there is none, and why.
        """
        return await self._in_time(url, self._answered)

    async def _in_time(self, url: str, call: Callable[[str], Awaitable[T]]) -> T:
        host = urlsplit(url).hostname
        try:
            # An exchange may send at once, so what was made in time may already have data.
            return await within(self.connect_timeout, partial(call, url))
        except trio.TooSlowError:
            raise TimeoutError(f"{host}: no connection within {self.connect_timeout:g} s") from None
        except ValueError as error:
            raise OSError(f"{host!r} is no host name: {error}") from error
        except (OSError, trio.BrokenResourceError) as error:
            raise ConnectionError(f"{host}: {reason_of(error)}") from error

    async def _shaken_hands(self, uri: WebSocketURI, url: str) -> Opened:
        stream = await self._connected(url)
        try:
            protocol = ClientProtocol(
                uri,
                extensions=[ClientPerMessageDeflateFactory(compress_settings={"memLevel": 5})],
                max_size=MOST_MESSAGE,
                logger=_QUIET,
            )
            return Opened(stream, protocol, await _handshake(stream, protocol))
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise

    async def _answered(self, url: str) -> bytes:
        stream, parts = await self._connected(url), urlsplit(url)
        try:
            return await post(stream, _authority(url), parts.path or "/")
        finally:
            await trio.aclose_forcefully(stream)

    async def _connected(self, url: str) -> trio.abc.Stream:
        """A stream to the host of a URL, with TLS if the URL says so."""
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme]
        stream = await self._routed(host, port)
        try:
            if parts.scheme in _SECURE:
                secure = TlsStream(stream, self.tls, host)
                await secure.do_handshake()
                return secure
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream

    async def _routed(self, host: str, port: int) -> trio.abc.Stream:
        """A stream to the host, through the proxy if there is one."""
        if self.proxy is None:
            return await self.connect(host, port)
        try:
            stream = await self.connect(self.proxy.host, self.proxy.port)
        except OSError as error:
            raise ConnectionError(f"the proxy: {reason_of(error)}") from None
        try:
            await tunnel(stream, self.proxy, _with_port(host, port))
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream


async def _handshake(stream: trio.abc.Stream, protocol: ClientProtocol) -> bytes:
    """Returns what came together with the answer.

    Raises:
        ConnectionError: the answer is no WebSocket.
    """
    request = protocol.connect()
    request.headers["User-Agent"] = USER_AGENT
    protocol.send_request(request)
    await stream.send_all(b"".join(protocol.data_to_send()))
    answer, early = b"", b""
    while True:
        data = await stream.receive_some()
        answer += data
        if answer.startswith(_ACCEPTED) and _END_OF_HEAD in answer:
            early = answer[answer.index(_END_OF_HEAD) + len(_END_OF_HEAD) :]
            data = data[: len(data) - len(early)]
        if data:
            protocol.receive_data(data)
        else:
            protocol.receive_eof()
        match protocol.handshake_exc:
            case InvalidStatus(response=response):
                raise ConnectionError(f"the handshake was answered {status_text(response.status_code)}")
            case Exception() as error:
                raise ConnectionError(f"the handshake failed: {error.__cause__ or error}")
        if protocol.events_received():
            return early


def _authority(url: str) -> str:
    parts = urlsplit(url)
    return _with_port(parts.hostname or "", parts.port)


def _with_port(host: str, port: int | None) -> str:
    name = f"[{host}]" if ":" in host else host
    return name if port is None else f"{name}:{port}"
