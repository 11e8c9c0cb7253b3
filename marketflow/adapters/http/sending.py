"""The sending half of a connection: data is sent in order, as a whole, and in few calls."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import trio

from marketflow.adapters.http.ending import Ending

GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)
"""The errors of a connection that the client or we have closed."""


class Sending:
    """The sending half of a connection. Its methods may be called by several tasks at a time."""

    def __init__(self, stream: trio.SocketStream, ending: Ending) -> None:
        self._stream = stream
        self._ending = ending
        self._lock = trio.Lock()
        self._held: list[bytes] | None = None
        self._finished = False

    def hold(self) -> None:
        """Collect data until `release`. Sending it in one call saves a tenth of the cost of an answer."""
        self._held = []

    async def release(self) -> None:
        """Send the data collected since `hold`, if there is any.

        Raises:
            BrokenResourceError, ClosedResourceError: the connection has ended.
        """
        held, self._held = self._held, None
        if held:
            await self._write(b"".join(held), last=False)

    async def send(self, data: bytes) -> None:
        """Send these bytes, or collect them after `hold`. Nothing is sent after `send_last`.

        Raises:
            BrokenResourceError, ClosedResourceError: the connection has ended.
        """
        if self._held is None:
            await self._write(data, last=False)
        else:
            self._held.append(data)

    async def send_last(self, data: bytes) -> None:
        """Send these bytes, then close the sending side."""
        await self.release()
        await self._write(data, last=True)

    async def _write(self, data: bytes, *, last: bool) -> None:
        if not data:  # the end of an answer with a Content-Length
            return
        async with self._lock:
            if self._finished:
                return
            self._finished = last
            try:
                # Half of a frame or an answer is useless, so a cancellation waits until all of it is sent.
                with self._ending.shielded() as sending:
                    await self._stream.send_all(data)
                    if last:
                        await self._stream.send_eof()
            except GONE:
                raise
            except BaseException:
                # It is unknown how much of it was sent, so nothing may follow it.
                self._ending.scope.cancel()
                raise
            if sending.cancelled_caught:
                self._ending.now()

    async def close(self) -> None:
        """Close the connection after the current send."""
        async with self._lock:
            self._finished = True
            with suppress(*GONE):
                await self._stream.send_eof()
            await self._stream.aclose()
