"""The side of a client's connection that Hypercorn calls: to send, to close, and to report busy and idle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from marketflow.adapters.http.connection_errors import OneConnection, split
from marketflow.adapters.http.ending import Ending
from marketflow.adapters.http.hypercorn_parts import Conversation, Hypercorn
from marketflow.adapters.http.idle import IdleTimer
from marketflow.adapters.http.sending import GONE, Sending


class ClientWire:
    """The writing side of a connection, and its end. Fills `hypercorn_parts.Wire`."""

    def __init__(self, stream: trio.SocketStream, hypercorn: Hypercorn, errors: OneConnection) -> None:
        self.ending = Ending()
        self.timer = IdleTimer(
            patience=hypercorn.config.keep_alive_timeout, stopping=hypercorn.stopping, close=stream.aclose
        )
        self.conversation: Conversation
        """Set as soon as Hypercorn's conversation has begun."""
        self._sending = Sending(stream, self.ending)
        self._errors = errors

    async def send(self, data: bytes) -> None:
        """Send these bytes. If that fails, the connection ends."""
        with self.reported():
            try:
                await self._sending.send(data)
            except GONE:
                await self._gone()

    async def send_last(self, data: bytes) -> None:
        """Send these bytes and then nothing more. The client has a few seconds to leave."""
        with self.reported():
            self.ending.soon()
            try:
                await self._sending.send_last(data)
            except GONE:
                await self._gone()

    def hold(self) -> None:
        """Collect data until `release`, to send it in one call."""
        self._sending.hold()

    async def release(self) -> None:
        """Send the data collected since `hold`."""
        with self.reported():
            try:
                await self._sending.release()
            except GONE:
                await self._gone()

    async def close(self) -> None:
        """Close the connection: the last answer was sent."""
        try:
            await self.release()
            self.ending.soon()
        finally:
            await self._sending.close()

    async def idle(self) -> None:
        """Mark the connection as idle: no request is being answered."""
        await self.release()
        self.timer.idle()

    async def busy(self) -> None:
        """Mark the connection as busy: a request has arrived."""
        self.timer.busy()

    def leave(self) -> None:
        """End the connection when the current send is complete."""
        self.ending.now()

    async def _gone(self) -> None:
        await self.conversation.broken()
        self.leave()

    def failed(self, error: BaseException, *, logged: bool = False) -> None:
        """End the connection because of an error."""
        self._errors.add(error, logged=logged)
        self.ending.soon()

    @contextmanager
    def reported(self) -> Iterator[None]:
        """A block whose errors are reported at once, since Hypercorn may replace them by other errors."""
        try:
            yield
        except BaseException as error:
            _, own = split(error)
            if own is not None:
                self.failed(own)
            raise
