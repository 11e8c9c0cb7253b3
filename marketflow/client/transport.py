"""HTTP/1.1 on Trio. h11 parses and builds the messages; this module does the I/O, with time limits."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Final

import h11
import trio

from marketflow import __version__
from marketflow.client.address import Address
from marketflow.client.errors import NotUnderstood, Unreachable
from marketflow.client.requests import Request
from marketflow.patience import within

HEAD_LIMIT: Final = 15.0
"""Seconds until an answer must have begun. The service's own time limits are shorter."""

_READ: Final = 64 * 1024


class Incoming:
    """An answer whose head was received; its body is read as it arrives."""

    def __init__(self, address: Address, stream: trio.abc.Stream) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        """The headers, by name in lower case."""
        self._address = address
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT)

    async def read(self) -> bytes:
        """The next bytes of the body; empty at its end.

        Raises:
            Unreachable: the connection was lost before the end.
            NotUnderstood: the server does not speak HTTP.
        """
        event = await self._next()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def begin(self, request: Request) -> None:
        """Send the request, and wait for the head of the answer.

        Raises:
            Unreachable, NotUnderstood: as `read`.
        """
        headers = {
            "Host": self._address.authority,
            "User-Agent": f"marketflow/{__version__}",
            "Connection": "close",
            **request.headers,
        }
        if request.method != "GET":
            headers["Content-Length"] = "0"
        target = self._address.prefix + request.target
        asked = h11.Request(method=request.method, target=target, headers=list(headers.items()))
        data = [self._http.send(part) or b"" for part in (asked, h11.EndOfMessage())]
        with _telling(self._address):
            await self._stream.send_all(b"".join(data))
        while not isinstance(event := await self._next(), h11.Response):
            pass  # an interim answer (1xx): the final one follows
        self.status = event.status_code
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}

    async def _next(self) -> h11.Event | type[h11.NEED_DATA | h11.PAUSED]:
        data = None
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                if data == b"":
                    raise Unreachable(str(self._address), "it closed the connection") from error
                raise NotUnderstood(str(self._address), f"not HTTP: {error}") from error
            if event is not h11.NEED_DATA:
                return event
            with _telling(self._address):
                data = await self._stream.receive_some(_READ)
            self._http.receive_data(bytes(data))


@asynccontextmanager
async def answering(address: Address, request: Request) -> AsyncIterator[Incoming]:
    """Send a request on a new connection, which is closed at the end of the block.

    Raises:
        Unreachable: no server listens there, or it does not answer in time.
        NotUnderstood: the server does not speak HTTP.
    """
    deadline = trio.current_time() + HEAD_LIMIT
    with _telling(address), trio.fail_at(deadline):
        stream = await _connect(address)
    async with stream:
        incoming = Incoming(address, stream)
        with _telling(address):
            await within(max(0.0, deadline - trio.current_time()), partial(incoming.begin, request))
        yield incoming


async def _connect(address: Address) -> trio.abc.Stream:
    if address.secure:
        # Close without TLS close_notify, as browsers do.
        return await trio.open_ssl_over_tcp_stream(address.host, address.port, https_compatible=True)
    return await trio.open_tcp_stream(address.host, address.port)


@contextmanager
def _telling(address: Address) -> Iterator[None]:
    """Translate the errors of Trio and the operating system into ours."""
    try:
        yield
    except trio.TooSlowError as error:
        raise Unreachable(str(address), f"no answer in {HEAD_LIMIT:.0f} s") from error
    except UnicodeError as error:
        raise Unreachable(str(address), "this is not a valid host name") from error
    except (OSError, trio.BrokenResourceError) as error:
        raise Unreachable(str(address), _reason(error)) from error


def _reason(error: BaseException) -> str:
    """A short text for the first cause."""
    while (cause := error.__cause__) is not None:
        error = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS: {error.reason or error}"
    if isinstance(error, OSError) and not isinstance(error, socket.gaierror) and error.errno:
        return os.strerror(error.errno).lower()  # without the address, which the message has already
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
