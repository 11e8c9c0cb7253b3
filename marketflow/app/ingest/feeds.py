"""The feed: keeps one exchange connected and reads it."""

from __future__ import annotations

import math
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final

import structlog
import trio

from marketflow.app.ports import Chunk
from marketflow.domain.lines import LineFramer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from marketflow.app.ports import Clock, Connection, Entropy, Source
    from marketflow.app.watch.clocks import Beat

HEALTHY_AFTER: Final = 5.0
"""Seconds of good lines after which a connection was a good one: the next back-off starts anew."""
LOG_INTERVAL: Final = 60.0
"""Seconds between two lines of the same event in the log while an outage lasts."""

AT_ONCE: Final = 1e-3
"""Seconds: what is there is taken. With none at all it would not even be tried."""
LITTLE: Final = 32_768
"""Bytes of a receive. After less a feed waits until more has come in: what is done once for each chunk takes
as long as a hundred of its lines. An exchange that has sent as much is not kept waiting."""

logger = structlog.get_logger()


class Feed:
    """Reads one exchange, connecting again whenever the connection ends, until it is told to stop.

    Between two connections it waits for a random part (full jitter) of a time that doubles from
    `backoff_min` to `backoff_max`. All times are in seconds, of Trio's clock. After a small receive it waits
    for the next `beat`, if there is one, as all feeds do: what is sent bit by bit comes together, and they
    wake up as one.

    `last_accepted` tells when the exchange's last update was accepted, None if none was yet.
    """

    def __init__(
        self,
        source: Source,
        *,
        clock: Clock,
        backoff_min: float,
        backoff_max: float,
        idle_timeout: float,
        beat: Beat | None,
        last_accepted: Callable[[], float | None],
        entropy: Entropy,
    ) -> None:
        self.exchange = source.exchange
        self._source = source
        self._clock = clock
        self._backoff_min = backoff_min
        self._backoff_max = backoff_max
        self._idle_timeout = idle_timeout
        self._beat = beat
        self._last_accepted = last_accepted
        self._entropy = entropy
        self._log = logger.bind(exchange=source.exchange)

        self.connected = False
        self.running_since = -math.inf
        """When it was last started."""
        self._first_connection = True
        self.connected_since: float | None = None
        """When the connection was made; None without one."""
        self.connections = 0
        """How many were made."""
        self.reconnects = 0
        """How many were made because one had ended: not the first of a run."""
        self.last_error: str | None = None
        """Why the last connection ended, or could not be made; None before there was a failure."""

        self._chunks_made = 0
        """In this run."""
        self._stopping = trio.Event()
        self._wait = trio.CancelScope()
        """Of the wait that goes on just now, or was the last."""
        self._failures = 0
        """Since the last healthy connection."""
        self._backoff = backoff_min
        """The most that the next wait takes."""
        self._told: dict[str, float] = {}
        """When each event was last told, since then."""

    async def run(self, chunks: trio.MemorySendChannel[Chunk], stopping: trio.Event) -> None:
        """Send what is received as chunks, until `stopping` is set. Owns and closes `chunks`.

        The stop ends waits for the outside only (connecting, receiving, backing off), never a send: what
        was received is sent on, and what has come in by then is received, as much as one receive takes. A
        line that has no end by then was not received, and is not sent.
        """
        self._stopping = stopping
        self.running_since = trio.current_time()
        self._first_connection = True
        # A switch of modes runs it again, with a new pool.
        self._chunks_made = 0
        self._forget_failures()
        async with chunks, trio.open_nursery() as nursery:
            nursery.start_soon(self._end_wait_at_stop)
            while not stopping.is_set():
                with suppress(OSError):  # told where it was raised
                    await self._connect_and_read(chunks)
                with self._waiting():
                    await trio.sleep(self._entropy.uniform(0, self._backoff))
                self._backoff = min(self._backoff * 2, self._backoff_max)

    async def _connect_and_read(self, chunks: trio.MemorySendChannel[Chunk]) -> None:
        """One connection, from connecting to its end; returns at a stop.

        Raises:
            OSError: it ended, or there was none to be had.
        """
        async with AsyncExitStack() as stack:
            connection = await self._connect(stack)
            if connection is None or self._stopping.is_set():
                return
            framer = LineFramer()
            try:
                with self._connected():
                    await self._read(connection, framer, chunks)
            except OSError:
                # What came before the end counts, also where the last line has no newline.
                await self._send(chunks, *framer.finish())
                raise

    async def _connect(self, stack: AsyncExitStack) -> Connection | None:
        """A new connection, which the stack closes; None at a stop."""
        try:
            # Only entering is a wait for the outside. A source must not leave a scope of its own open by it.
            with self._waiting():
                return await stack.enter_async_context(self._source.connect())
        except OSError as error:
            self._failed("cannot connect", error)
            raise
        return None

    async def _read(
        self, connection: Connection, framer: LineFramer, chunks: trio.MemorySendChannel[Chunk]
    ) -> None:
        ending = False
        while not ending:
            ending = self._stopping.is_set()
            data: bytes | None = None
            with self._waiting(self._idle_timeout):
                data = await connection.receive()
            if data is None and not self._stopping.is_set():
                # If our own process was stopped for so long, the time is over although data is there.
                with self._waiting(AT_ONCE):
                    data = await connection.receive()
            if data:
                await self._send(chunks, *framer.push(data))
                if self._beat is not None and len(data) < LITTLE:
                    with self._waiting():
                        await self._beat.wait()
            elif data is not None:
                raise ConnectionError("closed by the exchange")
            elif not self._stopping.is_set():
                raise TimeoutError(f"nothing received for {self._idle_timeout:g} s")

    async def _send(self, chunks: trio.MemorySendChannel[Chunk], lines: bytes, oversized: int) -> None:
        if not lines and not oversized:
            return
        chunk = Chunk(
            exchange=self._source.exchange,
            number=self._chunks_made,
            lines=lines,
            oversized=oversized,
            received_at=self._clock.now(),
            received_monotonic=trio.current_time(),
        )
        self._chunks_made += 1
        await chunks.send(chunk)

    # ---- waits that a stop ends ----

    def _waiting(self, seconds: float = math.inf) -> trio.CancelScope:
        """A scope for one wait: it ends at a stop, or after `seconds`. After the stop there is no wait."""
        self._wait = trio.CancelScope(relative_deadline=AT_ONCE if self._stopping.is_set() else seconds)
        return self._wait

    async def _end_wait_at_stop(self) -> None:
        await self._stopping.wait()
        self._wait.cancel()

    # ---- what is known and told of the connection ----

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Lasts as long as the connection."""
        since = trio.current_time()
        self.connected = True
        self.connected_since = since
        self.connections += 1
        if not self._first_connection:
            self.reconnects += 1
        self._first_connection = False
        self._tell("info", "connected")
        try:
            yield
        except OSError as error:
            accepted = self._last_accepted()
            if accepted is not None and accepted - since >= HEALTHY_AFTER:
                self._forget_failures()
            self._failed("disconnected", error, seconds=round(trio.current_time() - since, 3))
            raise
        finally:
            self.connected = False
            self.connected_since = None

    def _forget_failures(self) -> None:
        self._failures = 0
        self._backoff = self._backoff_min
        self._told.clear()

    def _failed(self, event: str, error: OSError, **facts: object) -> None:
        self._failures += 1
        self.last_error = str(error) or type(error).__name__
        self._tell("warning", event, error=self.last_error, attempts=self._failures, **facts)

    def _tell(self, level: str, event: str, **facts: object) -> None:
        """Log the event; on the level of debug if it was told lately, so that no outage floods the log."""
        now = trio.current_time()
        if now - self._told.get(event, -math.inf) < LOG_INTERVAL:
            level = "debug"
        else:
            self._told[event] = now
        getattr(self._log, level)(event, connection=self.connections, **facts)
