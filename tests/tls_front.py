"""TLS in front of a server that has none: a real listener with a real certificate."""

from __future__ import annotations

import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import attrs
import trio

HOST = "127.0.0.1"
_SSL_REQUEST = struct.pack("!II", 8, 80877103)
"""The request of a PostgreSQL client for TLS, which begins if the server answers `S`."""
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


@attrs.define
class Front:
    """The address of the front, and counters of what its clients did."""

    port: int
    handshakes: int = 0
    """Clients that trusted the certificate and went on."""
    refused: int = 0
    """Clients that did not trust the certificate."""
    in_clear: int = 0
    """Clients that did not ask for TLS; they are disconnected."""
    received: int = 0
    """Bytes that clients sent under TLS."""
    _open: set[trio.SocketStream] = attrs.field(factory=set)

    def cut(self) -> None:
        """End all connections."""
        for stream in self._open:
            stream.socket.close()


@asynccontextmanager
async def tls_front(port: int, context: ssl.SSLContext, *, postgres: bool = False) -> AsyncIterator[Front]:
    """Terminate the TLS of every client and forward the rest to `port`, until the end of the block.

    `postgres`: TLS begins in PostgreSQL's way, after an unencrypted request.
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
    """Forward data in both directions, until one side ends."""
    async with trio.open_nursery() as nursery:

        async def pass_on(source: trio.abc.Stream, target: trio.abc.Stream) -> None:
            with suppress(*_GONE):
                while data := await source.receive_some(65_536):
                    front.received += len(data) if source is client else 0
                    await target.send_all(data)
            nursery.cancel_scope.cancel()

        nursery.start_soon(pass_on, client, server)
        nursery.start_soon(pass_on, server, client)
