"""A socket with TLS as a stream, which also tells whether it holds something that nobody has asked for.

OpenSSL keeps what was received with a record that was asked for. The socket has nothing more then, but the
next receive would return it at once.
"""

from __future__ import annotations

import socket
import ssl

import trio


class _NothingMore(Exception):
    """Everything that was received has been decrypted."""


class _Socket(trio.abc.Stream):
    """The encrypted bytes. `waits`: whether a receive waits for more of them."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.waits = True
        self._stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if not self.waits:
            raise _NothingMore
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


class TlsStream:
    """TLS on a connected socket that does not block. The socket stays the caller's to close."""

    def __init__(self, connected: socket.socket, context: ssl.SSLContext, host: str) -> None:
        """`host`: whose certificate it has to be."""
        self._socket = _Socket(trio.SocketStream(trio.socket.from_stdlib_socket(connected)))
        self._secure = trio.SSLStream(self._socket, context, server_hostname=host, https_compatible=True)
        self.send_all = self._secure.send_all
        self.receive_some = self._secure.receive_some

    async def begin(self) -> None:
        """Shake hands.

        Raises:
            trio.BrokenResourceError: there is no TLS there, or the certificate is not trusted.
        """
        await self._secure.do_handshake()

    async def has_more(self) -> bool:
        """Whether more was received than was asked for: bytes, which are lost, the end, or garbage."""
        self._socket.waits = False
        try:
            await self._secure.receive_some(1)
        except _NothingMore:
            return False
        except trio.BrokenResourceError:
            return True
        finally:
            self._socket.waits = True
        return True
