"""TLS in front of a server that has none: a real listener with a real certificate, and what is behind it."""

from __future__ import annotations

import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import attrs
import trio

HOST = "127.0.0.1"
_SSL_REQUEST = struct.pack("!II", 8, 80877103)
"""How a client of PostgreSQL asks for TLS, which then begins if the server says `S`."""
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


@attrs.define
class Front:
    """Where it listens, and what has come so far."""

    port: int
    handshakes: int = 0
    """Clients that trusted it and went on."""
    refused: int = 0
    """Clients that did not."""
    in_clear: int = 0
    """Clients that did not even ask for TLS; they are not let in."""
    received: int = 0
    """Bytes that they sent under TLS."""
    _open: set[trio.SocketStream] = attrs.field(factory=set)

    def cut(self) -> None:
        """End every connection there is."""
        for stream in self._open:
            stream.socket.close()


@asynccontextmanager
async def tls_front(port: int, context: ssl.SSLContext, *, postgres: bool = False) -> AsyncIterator[Front]:
    """Take off the TLS of every client and pass the rest on to `port`, until the end of the block.

    `postgres`: TLS begins as PostgreSQL's does, after a request in clear.
    """
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host=HOST)
        front = Front(listener.socket.getsockname()[1])

        async def serve(stream: trio.SocketStream) -> None:
            with suppress(*_GONE):
                async with stream:
                    if postgres and not await _asked_for_tls(stream):
                        front.in_clear += 1
                        return
                    secure = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
                    try:
                        await secure.do_handshake()
                    except trio.BrokenResourceError:
                        front.refused += 1
                        return
                    front.handshakes += 1
                    front._open.add(stream)
                    try:
                        async with await trio.open_tcp_stream(HOST, port) as behind:
                            await _both_ways(secure, behind, front)
                    finally:
                        front._open.discard(stream)

        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield front
        nursery.cancel_scope.cancel()


async def _asked_for_tls(stream: trio.SocketStream) -> bool:
    first = await stream.receive_some(len(_SSL_REQUEST))
    if first != _SSL_REQUEST:
        return False
    await stream.send_all(b"S")
    return True


async def _both_ways(client: trio.abc.Stream, server: trio.abc.Stream, front: Front) -> None:
    """Pass on what comes, until one of them ends."""
    async with trio.open_nursery() as nursery:

        async def pass_on(source: trio.abc.Stream, target: trio.abc.Stream) -> None:
            with suppress(*_GONE):
                while data := await source.receive_some(65_536):
                    front.received += len(data) if source is client else 0
                    await target.send_all(data)
            nursery.cancel_scope.cancel()

        nursery.start_soon(pass_on, client, server)
        nursery.start_soon(pass_on, server, client)
