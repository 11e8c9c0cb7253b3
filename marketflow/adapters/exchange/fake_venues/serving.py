"""One client of a fake venue, from its connection to its end."""

from __future__ import annotations

import socket
import ssl
import struct
from typing import TYPE_CHECKING, Final

import h11
import structlog
import trio

from marketflow.adapters.exchange.fake_venues.connection import Connection
from marketflow.adapters.exchange.fake_venues.duties import duties
from marketflow.adapters.exchange.fake_venues.handshake import shake_hands

if TYPE_CHECKING:
    from marketflow.adapters.exchange.fake_venues.floor import Floor

HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds for TLS and the first request."""
RECEIVE: Final = 65_536
_GONE: Final = (
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.TooSlowError,
    OSError,
    h11.RemoteProtocolError,
)
"""What the end of a client, or nonsense that it sends, may raise."""
_RESET: Final = struct.pack("ii", 1, 0)

logger = structlog.get_logger()


async def serve_client(raw: trio.SocketStream, floor: Floor, context: ssl.SSLContext | None) -> None:
    """Serve a client until one of both sides ends the connection."""
    log = logger.bind(venue=floor.kind.name)
    async with raw:
        stream: trio.abc.Stream = raw
        try:
            if floor.faults.mute == "all":
                while await raw.receive_some(RECEIVE):
                    pass  # it is never answered
                return
            with trio.fail_after(HANDSHAKE_TIMEOUT):
                if context is not None:
                    stream = secure = trio.SSLStream(raw, context, server_side=True, https_compatible=True)
                    await secure.do_handshake()
                opened = await shake_hands(stream, floor)
            if opened is None:
                log.info("request answered")
                return
            protocol, session = opened
            connection = Connection(floor, session, protocol)
            log = log.bind(connection=session.number)
            log.info("client connected")
            await _talk(stream, floor, connection)
        except _GONE as error:
            log.info("client gone", error=str(error.__cause__ or error))
            return
        if connection.outbox.dropped.cancel_called:
            # At once, without the rest of what waits.
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            log.info("client dropped", slow=connection.outbox.full)
        else:
            log.info("client closed")


async def _talk(stream: trio.abc.Stream, floor: Floor, connection: Connection) -> None:
    """Read, write, and do what is due by the clock."""
    floor.connections.append(connection)
    if not floor.kind.rules.greets_after:
        connection.greet()
    failures: list[BaseException] = []

    async def write() -> None:
        try:
            while data := await connection.outbox.take():
                await stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            failures.append(error)
        scope.cancel()

    async def read() -> None:
        try:
            while data := await stream.receive_some(RECEIVE):
                connection.receive(bytes(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            failures.append(error)
            scope.cancel()
            return
        connection.receive(b"")

    try:
        with connection.outbox.dropped:
            async with trio.open_nursery() as nursery:
                scope = nursery.cancel_scope
                for duty in duties(connection, floor):
                    nursery.start_soon(duty)
                nursery.start_soon(write)
                nursery.start_soon(read)
    finally:
        floor.connections.remove(connection)
    if failures:
        raise failures[0]
