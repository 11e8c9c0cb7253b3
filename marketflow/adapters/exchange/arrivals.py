"""Tells whether something has come on a socket, without a receive."""

from __future__ import annotations

import select

import trio


class Arrivals:
    """What has come on one socket."""

    def __init__(self, socket: trio.socket.SocketType) -> None:
        self._readable = select.poll()
        self._readable.register(socket, select.POLLIN)

    def has_come(self) -> bool:
        """Whether something has come: bytes, or the end of the connection."""
        return bool(self._readable.poll(0))
