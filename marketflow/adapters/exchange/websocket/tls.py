"""TLS over a stream. One receive takes all that has come, however many records it is.

`trio.SSLStream` returns one record at a time, and gives other tasks a turn for each. Exchanges send each
message in a record of its own, so every trade would be a payload of its own: that cost five times as much.
"""

from __future__ import annotations

import ssl

import trio

_READ = 65_536


class TlsStream(trio.abc.Stream):
    """The client's side. One task may send while another one receives; a cancelled receive loses nothing.

    Nobody says goodbye in TLS: WebSockets have a close of their own.
    """

    def __init__(self, stream: trio.abc.Stream, context: ssl.SSLContext, host: str) -> None:
        """`host`: whose certificate it has to be."""
        self.transport = stream
        """The stream below."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    async def do_handshake(self) -> None:
        """Shake hands. Nothing else may be done before.

        Raises:
            trio.BrokenResourceError: there is no TLS there, or the certificate is not trusted.
        """
        is_done = False
        while not is_done:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError as error:
                raise trio.BrokenResourceError from error
            else:
                is_done = True
        await self._flush()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What has come, up to `max_bytes` (64 KiB by default); empty at the end."""
        data = self._decrypted(max_bytes)
        if data is not None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return data
        while data is None:
            await self._fill()
            data = self._decrypted(max_bytes)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send it all."""
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            raise trio.BrokenResourceError from error
        # This includes what TLS itself has to answer. It may wait for our next send.
        await self._flush()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room for more."""
        await self.transport.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the stream below."""
        await self.transport.aclose()

    def _decrypted(self, max_bytes: int | None) -> bytes | None:
        """All that can be decrypted now; None if that is nothing yet, empty at the end."""
        found = bytearray()
        most = _READ if max_bytes is None else max_bytes
        try:
            while len(found) < most:
                part = self._tls.read(most - len(found))
                if not part:
                    break
                found += part
        except ssl.SSLWantReadError:
            return bytes(found) or None
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            pass  # the next call comes here again
        except ssl.SSLError as error:
            if not found:
                raise trio.BrokenResourceError from error
        return bytes(found)

    async def _fill(self) -> None:
        data = await self.transport.receive_some(_READ)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self.transport.send_all(self._outgoing.read())
