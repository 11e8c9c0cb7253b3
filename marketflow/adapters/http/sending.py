"""What is sent on a connection: in order, whole, and in few calls."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import trio

from marketflow.adapters.http.ending import Ending

GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)
"""What is raised when the client has ended the connection, or we have."""


class Sending:
    """The sending half of a connection. Its methods may be called by several tasks at a time."""

    def __init__(self, stream: trio.SocketStream, ending: Ending) -> None:
        self._stream = stream
        self._ending = ending
        self._lock = trio.Lock()
        self._held: list[bytes] | None = None
        self._finished = False

    def hold(self) -> None:
        """Keep what is to be sent until `release`: one call for all of it is a tenth of an answer cheaper."""
        self._held = []

    async def release(self) -> None:
        """Send what was kept, if anything was.

        Raises:
            BrokenResourceError, ClosedResourceError: the connection has ended.
        """
        held, self._held = self._held, None
        if held:
            await self._write(b"".join(held), last=False)

    async def send(self, data: bytes) -> None:
        """Send these bytes, or keep them since `hold`. Nothing is sent after `send_last`.

        Raises:
            BrokenResourceError, ClosedResourceError: the connection has ended.
        """
        if self._held is None:
            await self._write(data, last=False)
        else:
            self._held.append(data)

    async def send_last(self, data: bytes) -> None:
        """Send these bytes, and tell the client that nothing more comes."""
        await self.release()
        await self._write(data, last=True)

    async def _write(self, data: bytes, *, last: bool) -> None:
        if not data:  # the end of an answer that has told its length
            return
        async with self._lock:
            if self._finished:
                return
            self._finished = last
            try:
                # Half of a frame or of an answer is of no use, so a cancellation waits for the rest of it.
                with self._ending.shielded() as sending:
                    await self._stream.send_all(data)
                    if last:
                        await self._stream.send_eof()
            except GONE:
                raise
            except BaseException:
                # Nobody knows how much of it was sent, so nothing may follow it.
                self._ending.scope.cancel()
                raise
            if sending.cancelled_caught:
                self._ending.now()

    async def close(self) -> None:
        """Close the connection when what is being sent was sent."""
        async with self._lock:
            self._finished = True
            with suppress(*GONE, trio.BusyResourceError):
                await self._stream.send_eof()
            await self._stream.aclose()
