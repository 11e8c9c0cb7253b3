"""The intake: what a source works with while it runs. It fills the port of that name."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
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
        if self.send_at_once(payload):
            return
        chunk = self._chunk(payload)
        self.next_number += 1
        self._waiting.append(chunk)
        self._changed.unpark_all()
        while self._waiting and self._waiting[0].number <= chunk.number:
            await self._changed.park()

    def send_at_once(self, payload: AnyPayload) -> bool:
        """Send it as the next chunk if there is room; returns whether there was.

        An error of the channel is ours: `run` will raise it, not the source.
        """
        if self._waiting:
            return False
        try:
            self._chunks.send_nowait(self._chunk(payload))
        except (trio.WouldBlock, trio.BrokenResourceError):
            return False
        self.next_number += 1
        return True

    def _chunk(self, payload: AnyPayload) -> Chunk[AnyPayload]:
        return Chunk(self._exchange, self.next_number, payload)

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
        self._sender = sender
        self._idle_timeout = idle_timeout
        self._on_ended = on_ended
        self.reported: Exception | None = None
        """Why the source has said that its connection ended."""
        self.connected = on_connected

    @property
    def stopping(self) -> bool:
        """Whether the stop has come."""
        return self._waits.stopping

    async def outside(self, wait: Callable[[], Awaitable[T]], seconds: float = math.inf) -> T | None:
        """Call `wait` and return its result; None if the stop or the time limit ended it."""
        return await self._waits.outside(wait, seconds)

    async def send(self, payload: AnyPayload) -> None:
        """Pass it on to the workers."""
        await self._sender.send(payload)

    def ended(self, error: Exception) -> None:
        """The connection has ended."""
        self.reported = error
        self._on_ended(error)

    def received(self, receive: Callable[[], Awaitable[T]]) -> AsyncIterator[T]:
        """Receive until the stop, and once more after it."""
        return Receiving(self._waits, receive, self._idle_timeout)

    async def forward(self, receive: Callable[[], Awaitable[AnyPayload | None]]) -> None:
        """Receive until the stop, and once more after it, and send what was received."""

        async def receive_and_send() -> Sequence[AnyPayload]:
            """As long as the workers take everything at once; returns what they did not take."""
            while True:
                payload = await receive()
                receiving.note_life()
                if payload is not None and not self._sender.send_at_once(payload):
                    return (payload,)
                if self._waits.stopping:
                    return ()

        receiving = Receiving(self._waits, receive_and_send, self._idle_timeout)
        async for payloads in receiving:
            for payload in payloads:
                await self.send(payload)


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
        self._alive_at = -math.inf
        """When something was received last, or the present receive began (seconds of Trio's clock)."""

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
            self.note_life()
            data = await self._while_alive()
            if data is not None:
                return data
            if not self._waits.stopping:
                raise TimeoutError(f"nothing received for {self._idle_timeout:g} s")
        raise StopAsyncIteration

    async def _while_alive(self) -> T | None:
        """What is received next; None after the stop, or when nothing was received for the idle timeout."""
        while True:
            left = self._left()
            data = await self._waits.outside(self._receive, max(left, AT_ONCE))
            if data is not None or self._waits.stopping:
                return data
            # If our own process stood still, the time is over although something is there: look once more.
            if left <= AT_ONCE and self._left() <= AT_ONCE:
                return None

    def note_life(self) -> None:
        """The idle timeout begins again, also if `receive` goes on."""
        self._alive_at = trio.current_time()

    def _left(self) -> float:
        """Seconds until the idle timeout."""
        return self._alive_at + self._idle_timeout - trio.current_time()
