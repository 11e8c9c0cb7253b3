"""A client on loopback can connect to itself.

A server's port may be in the range from which the kernel takes the ports of clients. If nobody listens on it,
a client that connects to it again and again is given that very port at some time. Then both ends of the
connection are the client, and the server cannot listen on its port.
"""

from __future__ import annotations

import socket
import struct
from typing import Any, Final, Protocol

_RESET: Final = struct.pack("ii", 1, 0)


class Socket(Protocol):
    """What a connected socket of the standard library and one of Trio have in common."""

    def getsockname(self) -> Any:
        """Its own address."""
        ...

    def getpeername(self) -> Any:
        """The address at the other end."""
        ...

    def setsockopt(self, level: int, option: int, value: bytes, /) -> None:
        """Set an option."""
        ...


def check_other_end(connected: Socket) -> None:
    """Raise an error for a socket that is connected to itself. It stays the caller's to close.

    Raises:
        ConnectionError: it is, or the other end has already reset the connection.
    """
    try:
        other = connected.getpeername()
    except OSError as error:
        # The kernel says "not connected", which is not one of Python's errors of connections.
        raise ConnectionResetError("the other end reset the connection at once") from error
    if connected.getsockname() == other:
        # A reset, because after an ordinary close the kernel would keep the port for another minute.
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        raise ConnectionError("nobody listens there: connected to itself")
