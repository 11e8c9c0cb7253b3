"""An exchange that sends lines over TCP."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import trio

from marketflow.adapters.exchange.arrivals import Arrivals
from marketflow.adapters.exchange.dialing import open_tcp
from marketflow.patience import within

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from marketflow.adapters.exchange.lines import Lines
    from marketflow.adapters.exchange.reading import LineReader
    from marketflow.app.ports import Decode, Intake

LEAST_RECEIVED: Final = 65_536
MOST_RECEIVED: Final = 262_144
RECEIVED_PER_SYMBOL: Final = 2_600
"""Bytes, about 35 lines. The work for each symbol of a payload costs as much as ten of its lines."""


def receive_size(symbols: int) -> int:
    """The most bytes of one receive: enough for several lines of each symbol.

    It is not more than that, so that the decoded data stays in the processor's cache.
    """
    return max(LEAST_RECEIVED, min(symbols * RECEIVED_PER_SYMBOL, MOST_RECEIVED))


class TcpConnection:
    """The bytes of one connection."""

    def __init__(self, stream: trio.SocketStream, receive_size: int) -> None:
        self._stream = stream
        self._receive_size = receive_size
        self.has_come = Arrivals(stream.socket).has_come

    async def receive(self) -> bytes:
        """The next bytes; empty at the end. What has come is received at once.

        `trio.SocketStream` would give all other tasks a turn then. The caller does that when it is time to:
        for a few lines a turn costs more than they do.

        Raises:
            ConnectionError: the connection broke.
        """
        try:
            while True:
                try:
                    return os.read(self._stream.socket.fileno(), self._receive_size)
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(self._stream.socket)
        except (OSError, trio.ClosedResourceError) as error:
            closed = self._stream.socket.fileno() == -1
            raise ConnectionError("this connection was closed" if closed else str(error)) from error


@attrs.frozen
class TcpSource:
    """Implements the port `Source`: lines over TCP."""

    exchange: str
    host: str
    port: int
    decode: Decode[Lines]
    reader: LineReader
    receive_size: int = LEAST_RECEIVED
    """The most bytes of one receive."""
    connect_timeout: float = 5.0
    """Seconds."""

    async def run(self, intake: Intake[Lines]) -> None:
        """Connect and read, until the connection ends or the stop comes.

        Raises:
            OSError: no connection could be made, or it ended.
        """
        await self.reader.connect_and_read(intake, self.connect())

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[TcpConnection]:
        """A new connection, closed on leaving.

        Raises:
            OSError: no connection could be made.
        """
        try:
            # The exchange sends first, so a connection that was made in time may already have data.
            stream = await within(self.connect_timeout, partial(open_tcp, self.host, self.port))
        except trio.TooSlowError:
            address = f"{self.host}:{self.port}"
            raise TimeoutError(f"no connection to {address} within {self.connect_timeout:g} s") from None
        except UnicodeError as error:
            raise OSError(f"{self.host!r} is no host name: {error}") from error
        except OSError as error:
            raise ConnectionError(f"{self.host}:{self.port}: {_reason(error)}") from error
        async with stream:
            yield TcpConnection(stream, self.receive_size)


def _reason(error: OSError) -> str:
    """Why the first address was not reached. Trio only reports that none was."""
    causes = error.__cause__
    first = causes.exceptions[0] if isinstance(causes, BaseExceptionGroup) else error
    number = getattr(first, "errno", None)
    return str(error) if number is None or number < 0 else os.strerror(number)
