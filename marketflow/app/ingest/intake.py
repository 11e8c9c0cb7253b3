"""The intake: what a source works with while it runs. It fills the port of that name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

import trio

from marketflow.app.ingest.waits import AT_ONCE, Waits
from marketflow.app.ports import AnyPayload, Chunk

T = TypeVar("T")


class ChunkSender(Generic[AnyPayload]):
    """Numbers the payloads of one run of a feed, and sends them to the workers."""

    def __init__(self, exchange: str, chunks: trio.MemorySendChannel[Chunk[AnyPayload]]) -> None:
        """The channel stays the caller's to close."""
        self._exchange = exchange
        self._chunks = chunks
        self._next_number = 0
        self.waiting = 0
        """How many payloads have not been taken by the channel yet."""
        self.fault: Exception | None = None
        """What a send has raised. It is an error of ours, although it passes through the source."""

    async def send(self, payload: AnyPayload) -> None:
        """Send it as the next chunk, however long the workers take."""
        # No other task gets a turn between the number and the channel, so the order is that of the calls.
        chunk = Chunk(self._exchange, self._next_number, payload)
        self._next_number += 1
        self.waiting += 1
        try:
            await self._chunks.send(chunk)
        except Exception as error:
            self.fault = error
            raise
        finally:
            self.waiting -= 1


class Intake(Generic[AnyPayload]):
    """The waits, the way to the workers, and the notice that the exchange is connected, or no longer."""

    def __init__(
        self,
        waits: Waits,
        sender: ChunkSender[AnyPayload],
        *,
        idle_timeout: float,
        on_connected: Callable[[], None],
        on_ended: Callable[[Exception], None],
    ) -> None:
        """`idle_timeout` in seconds."""
        self._waits = waits
        self._sender = sender
        self._idle_timeout = idle_timeout
        self._on_ended = on_ended
        # Bound directly: a wrapper around each call is noticeable with small payloads.
        self.outside = waits.outside
        self.send = sender.send
        self.connected = on_connected

    @property
    def stopping(self) -> bool:
        """Whether the stop has come."""
        return self._waits.stopping

    def ended(self, error: Exception) -> None:
        """The connection has ended; an error of ours has not ended it."""
        if self._sender.fault is None:
            self._on_ended(error)

    def received(self, receive: Callable[[], Awaitable[T]]) -> AsyncIterator[T]:
        """Receive until the stop, and once more after it."""
        return Receiving(self._waits, receive, self._idle_timeout)


class Receiving(Generic[T]):
    """Receives until the stop, and once more after it; an iterator of what was received.

    It is no generator, because a source may leave it in the middle.
    """

    def __init__(self, waits: Waits, receive: Callable[[], Awaitable[T]], idle_timeout: float) -> None:
        """`idle_timeout` in seconds."""
        self._waits = waits
        self._receive = receive
        self._idle_timeout = idle_timeout
        self._ending = False
        """Whether the last receive was the one after the stop."""

    def __aiter__(self) -> Receiving[T]:
        """Itself."""
        return self

    async def __anext__(self) -> T:
        """What is received next.

        Raises:
            TimeoutError: nothing was received for the idle timeout.
        """
        while not self._ending:
            self._ending = self._waits.stopping
            data = await self._waits.outside(self._receive, self._idle_timeout)
            if data is None and not self._waits.stopping:
                # If our own process was stopped for so long, the time is over although something is there.
                data = await self._waits.outside(self._receive, AT_ONCE)
            if data is not None:
                return data
            if not self._waits.stopping:
                raise TimeoutError(f"nothing received for {self._idle_timeout:g} s")
        raise StopAsyncIteration
