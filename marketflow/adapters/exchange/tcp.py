"""An exchange over TCP."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import trio

from marketflow.patience import within

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LEAST_RECEIVED: Final = 65_536
MOST_RECEIVED: Final = 262_144
RECEIVED_PER_SYMBOL: Final = 2_600
"""Bytes: some 35 lines. What is done once for each symbol of a chunk takes as long as ten of its lines."""


def receive_size(symbols: int) -> int:
    """The most bytes of one receive, so that a chunk of so many symbols has enough lines of each.

    No more than that: what is decoded has to stay in the processor's cache.
    """
    return max(LEAST_RECEIVED, min(symbols * RECEIVED_PER_SYMBOL, MOST_RECEIVED))


@attrs.frozen
class TcpConnection:
    """Fills the port `Connection`."""

    _stream: trio.SocketStream
    _receive_size: int

    async def receive(self) -> bytes:
        """The next bytes; empty at the end.

        Raises:
            ConnectionError: the connection broke.
        """
        try:
            return bytes(await self._stream.receive_some(self._receive_size))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionError(str(error.__cause__ or error)) from error


@attrs.frozen
class TcpSource:
    """Fills the port `Source`."""

    exchange: str
    host: str
    port: int
    receive_size: int = LEAST_RECEIVED
    """Bytes of one receive at most."""
    connect_timeout: float = 5.0
    """Seconds."""

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[TcpConnection]:
        """A new connection, closed on leaving.

        Raises:
            OSError: there is none to be had.
        """
        try:
            # The exchange speaks first: on a connection that was made in time it may have sent already.
            stream = await within(self.connect_timeout, partial(trio.open_tcp_stream, self.host, self.port))
        except trio.TooSlowError:
            address = f"{self.host}:{self.port}"
            raise TimeoutError(f"no connection to {address} within {self.connect_timeout:g} s") from None
        except UnicodeError as error:
            raise OSError(f"{self.host!r} is no host name: {error}") from error
        except OSError as error:
            raise OSError(f"{self.host}:{self.port}: {_reason(error)}") from error
        async with stream:
            # The exchange's port may lie in the range of the kernel's own ports: with no one listening there,
            # a connection on loopback can be given that very port, meets itself, and keeps the exchange out.
            if stream.socket.getsockname() == stream.socket.getpeername():
                # Closed by a reset: after an ordinary close the kernel keeps the port for another minute.
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                raise ConnectionError(f"no one listens on {self.host}:{self.port}: connected to itself")
            yield TcpConnection(stream, self.receive_size)


def _reason(error: OSError) -> str:
    """Why the first of its addresses was not reached: Trio says no more than that all were not."""
    causes = error.__cause__
    first = causes.exceptions[0] if isinstance(causes, BaseExceptionGroup) else error
    number = getattr(first, "errno", None)
    return str(error) if number is None or number < 0 else os.strerror(number)
