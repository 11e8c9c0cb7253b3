"""A server that answers with bytes of the test, valid or not."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import trio

from marketflow.client.address import Address

Answer = Callable[[bytes, trio.abc.Stream], Awaitable[None]]
"""Gets the request's head and the stream for the answer, which is closed afterwards."""


def with_bytes(*pieces: bytes) -> Answer:
    """Always answer with the same bytes, one piece at a time."""

    async def answer(_: bytes, stream: trio.abc.Stream) -> None:
        for piece in pieces:
            await stream.send_all(piece)
            await trio.sleep(0.005)  # so that they arrive one by one; nothing depends on it

    return answer


async def silent(_: bytes, stream: trio.abc.Stream) -> None:
    """Send nothing, and keep the connection open."""
    await stream.receive_some()


def json_answer(
    body: str, *, status: str = "200 OK", kind: str = "application/json", head: str = ""
) -> bytes:
    """An answer in the form of the service's."""
    data = body.encode()
    fields = f"Content-Type: {kind}\r\nContent-Length: {len(data)}\r\n{head}"
    return f"HTTP/1.1 {status}\r\n{fields}\r\n".encode() + data


@asynccontextmanager
async def raw_server(answer: Answer, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Address]:
    """Serve until the end of the block."""

    async def serve(stream: trio.abc.Stream) -> None:
        # Clients may disconnect at any time.
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with stream:
                head = b""
                while b"\r\n\r\n" not in head:
                    data = await stream.receive_some()
                    if not data:
                        return
                    head += data
                await answer(head, stream)

    async with trio.open_nursery() as nursery:
        if tls is None:
            listen = partial(trio.serve_tcp, serve, 0, host="127.0.0.1")
        else:
            listen = partial(trio.serve_ssl_over_tcp, serve, 0, tls, host="127.0.0.1", https_compatible=True)
        (listener, *_) = await nursery.start(listen)
        socket = getattr(listener, "transport_listener", listener).socket
        yield Address("127.0.0.1", socket.getsockname()[1], secure=tls is not None, prefix="")
        nursery.cancel_scope.cancel()
