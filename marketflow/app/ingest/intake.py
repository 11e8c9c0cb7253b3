"""The intake: what a source works with while it runs. It fills the port of that name."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

import trio

from marketflow.app.ingest.waits import AT_ONCE, Waits
from marketflow.app.ports import AnyPayload, Chunk

T = TypeVar("T")


class ChunkSender(Generic[AnyPayload]):
    """Numbers the payloads of one run of a feed, and passes them on to the workers.

    A payload belongs to the sender from the call of `send` on. The source may cancel that call, for example
    because another of its tasks has failed. The sender still passes the payload on. Otherwise the fan-in
    would wait for its number for ever.
    """

    def __init__(
        self, exchange: str, chunks: trio.MemorySendChannel[Chunk[AnyPayload]], first: int = 0
    ) -> None:
        """The channel stays the caller's to close. `first`: the number of the first payload."""
        self._exchange = exchange
        self._chunks = chunks
        self.next_number = first
        """That of the next payload."""
        self._waiting: deque[Chunk[AnyPayload]] = deque()
        """Chunks for which there was no room."""
        self._changed = trio.lowlevel.ParkingLot()

    @property
    def waiting(self) -> int:
        """How many payloads have not been taken by the channel yet."""
        return len(self._waiting)

    async def send(self, payload: AnyPayload) -> None:
        """Send it as the next chunk, and wait until the channel has taken it.

        If there is room it takes it at once, and other tasks get no turn: the next receive gives them one.
        """
        # No other task gets a turn between the number and the channel, so the order is that of the calls.
        chunk = Chunk(self._exchange, self.next_number, payload)
        self.next_number += 1
        if not self._waiting and self._sent(chunk):
            return
        self._waiting.append(chunk)
        self._changed.unpark_all()
        while self._waiting and self._waiting[0].number <= chunk.number:
            await self._changed.park()

    def _sent(self, chunk: Chunk[AnyPayload]) -> bool:
        """Send it if there is room. An error of the channel is ours: `run` will raise it, not the source."""
        try:
            self._chunks.send_nowait(chunk)
        except (trio.WouldBlock, trio.BrokenResourceError):
            return False
        return True

    async def run(self) -> None:
        """Pass on the chunks for which there was no room, until it is cancelled.

        Raises:
            trio.BrokenResourceError: the workers have gone.
        """
        while True:
            while self._waiting:
                await self._chunks.send(self._waiting[0])
                self._waiting.popleft()
                self._changed.unpark_all()
            await self._changed.park()

    async def drained(self) -> None:
        """Wait until all has been passed on."""
        while self._waiting:
            await self._changed.park()


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
        self._idle_timeout = idle_timeout
        self._on_ended = on_ended
        self.reported: Exception | None = None
        """Why the source has said that its connection ended."""
        # Bound directly: a wrapper around each call is noticeable with small payloads.
        self.outside = waits.outside
        self.send = sender.send
        self.connected = on_connected

    @property
    def stopping(self) -> bool:
        """Whether the stop has come."""
        return self._waits.stopping

    def ended(self, error: Exception) -> None:
        """The connection has ended."""
        self.reported = error
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
