"""A simulated exchange: a TCP server that sends like the real ones, with faults if wanted."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Final, Literal

import structlog
import trio

from marketflow.adapters.exchange.broadcast import Broadcast, Reader
from marketflow.adapters.exchange.fair import COMMON_SEED, FairPrices
from marketflow.adapters.exchange.faults import GARBAGE, NO_FAULTS, Faults
from marketflow.adapters.exchange.volumes import Volumes, tick_lines
from marketflow.adapters.exchange.walk import Prices, Walk
from marketflow.app.instruments.clocks import SystemClock
from marketflow.domain.prices import SYMBOLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marketflow.app.ports import Clock

WRITE_INTERVAL: Final = 0.01
"""Seconds. At higher rates several ticks share one write, which saves wake-ups."""
CATCH_UP: Final = 0.5
"""Seconds. If ticks are later than this (the process was delayed), the missed ones are skipped."""
BLOCK_TICKS: Final = 180
"""The most ticks in one write: about 64 KiB with five symbols."""
BLOCKS: Final = 32
"""The number of different blocks of a free walk at full speed; they are repeated with new timestamps."""

# Replaced by the current timestamp whenever a block is sent.
_PLACEHOLDER: Final = 1_000_000_000_000
_PLACED: Final = b'"timestamp":%d'

Kind = Literal["free", "fair"]
"""`free`: a random walk, as on the provided exchanges, independent of other exchanges. `fair`: all exchanges
with the same seed quote the same market, with a little noise."""

logger = structlog.get_logger()


async def simulate(
    *,
    name: str,
    host: str,
    port: int,
    rate: float = 10,
    seed: int | None = None,
    walk: Kind = "free",
    symbols: Sequence[str] = SYMBOLS,
    volumes: bool = False,
    faults: Faults = NO_FAULTS,
    clock: Clock | None = None,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled. Started, with its port, once it listens (`port` 0: any free one).

    There is one sequence of lines: `rate` ticks a second, where a tick is one line for each symbol. All
    clients get the same bytes from the moment at which they connect. The sequence begins with the first
    connection and then continues even if no client is connected. A slow client delays nobody: it is
    disconnected when too much data waits for it.

    The provided exchanges tell no volumes. With `volumes` each line has a volume and a side. Its prices are
    the same as without.

    With `rate` 0 the sequence is as fast as its slowest reader, and pauses while there is no reader. A reader
    that takes nothing for a second while another one waits is disconnected.

    Raises:
        OSError: it cannot listen there.
    """
    exchange = _Exchange(
        log=logger.bind(exchange=name),
        lines=_lines_of(name, walk, symbols, seed, faults, clock or SystemClock(), volumes=volumes),
        faults=faults,
        seed=seed,
    )
    listeners = await trio.open_tcp_listeners(port, host=host)
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, exchange.serve, listeners)
        nursery.start_soon(exchange.send, rate)
        bound: int = listeners[0].socket.getsockname()[1]
        exchange.log.info("exchange listening", host=host, port=bound)
        task_status.started(bound)


def _lines_of(
    name: str,
    walk: Kind,
    symbols: Sequence[str],
    seed: int | None,
    faults: Faults,
    clock: Clock,
    *,
    volumes: bool,
) -> _Lines:
    rng = random.Random(seed)  # noqa: S311 - made-up prices are no secret
    # Exchanges of one market with the same seed have the same prices, but each has its own trades.
    volumes_seed = None if seed is None else f"{seed}" if walk == "free" else f"{seed}/{name}"
    trades = Volumes(symbols, volumes_seed) if volumes else None
    if walk == "free":
        return _WalkLines(Walk(symbols, rng), trades, faults, rng, clock)
    prices = FairPrices(name, symbols, COMMON_SEED if seed is None else seed)
    return _Lines(prices, trades, faults, rng, clock)


class _Exchange:
    """The sequence, and its connections."""

    def __init__(
        self, log: structlog.typing.FilteringBoundLogger, lines: _Lines, faults: Faults, seed: int | None
    ) -> None:
        self.log = log
        self._lines = lines
        self._faults = faults
        self._seed = seed
        self._broadcast = Broadcast()
        self._connections = 0

    async def send(self, rate: float) -> None:
        """Make the sequence on schedule. It begins with the first connection, which so gets all of it."""
        await self._broadcast.first_reader()
        pace = _Pace(rate, self._faults.silence)
        while True:
            if not rate:
                await self._broadcast.room()
                await pace.due()
                self._broadcast.send(self._lines.block())
                continue
            ticks = await pace.due()
            while ticks > 0:
                self._broadcast.send(self._lines.next(min(ticks, BLOCK_TICKS)))
                ticks -= BLOCK_TICKS
                # Lets the connections send before there is more.
                await trio.lowlevel.checkpoint()

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection, until it is due to be closed or the client has left."""
        self._connections += 1
        log = self.log.bind(connection=self._connections)
        log.info("client connected")
        # A separate random generator, so that connections do not change the lines.
        rng = random.Random(f"{self._seed} {self._connections}")  # noqa: S311 - no secret
        try:
            with (
                trio.move_on_after(self._faults.close_every or math.inf),
                self._broadcast.reader() as reader,
            ):
                await self._write(stream, reader, rng)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            log.info("client gone", error=str(error.__cause__ or error))
        else:
            if reader.dropped.cancel_called:
                log.warning("client disconnected", reason="it reads too slowly")
            else:
                log.info("client closed")

    async def _write(self, stream: trio.SocketStream, reader: Reader, rng: random.Random) -> None:
        held = b""
        while True:
            data = held + await reader.next()
            end = len(data)
            if rng.random() < self._faults.half_lines:
                end = _within_a_line(data, rng)
            held = data[end:]
            await stream.send_all(data[:end])


def _within_a_line(data: bytes, rng: random.Random) -> int:
    end = rng.randrange(1, len(data))
    return end - 1 if data[end - 1 : end] == b"\n" else end


class _Lines:
    """The lines of the sequence."""

    def __init__(
        self, prices: Prices, volumes: Volumes | None, faults: Faults, rng: random.Random, clock: Clock
    ) -> None:
        self._prices = prices
        self._volumes = volumes
        self._garbage = faults.garbage
        self._skew = round(faults.skew * 1_000)
        self._rng = rng
        self._clock = clock

    def next(self, ticks: int) -> bytes:
        """The next ticks, all with the current time."""
        now = self._clock.now()
        return self._ticks(ticks, now, now + self._skew)

    def block(self) -> bytes:
        """The next ticks at full speed."""
        if self._garbage:
            return self.next(BLOCK_TICKS)
        # All ticks have the same time and therefore the same prices.
        return self.next(1) * BLOCK_TICKS

    def _ticks(self, ticks: int, now: int, timestamp: int) -> bytes:
        lines = [
            line for _ in range(ticks) for line in tick_lines(self._prices.at(now), timestamp, self._volumes)
        ]
        if self._garbage:
            lines = [
                self._rng.choice(GARBAGE) + b"\n" if self._rng.random() < self._garbage else line
                for line in lines
            ]
        return b"".join(lines)


class _WalkLines(_Lines):
    """Lines whose prices do not depend on the time. At full speed, blocks of them are repeated."""

    def __init__(
        self, prices: Prices, volumes: Volumes | None, faults: Faults, rng: random.Random, clock: Clock
    ) -> None:
        super().__init__(prices, volumes, faults, rng, clock)
        self._blocks: list[bytes] = []
        self._next_block = 0

    def block(self) -> bytes:
        """The next ticks at full speed. Blocks are repeated: formatting prices costs more than sending."""
        if len(self._blocks) < BLOCKS:
            self._blocks.append(self._ticks(BLOCK_TICKS, _PLACEHOLDER, _PLACEHOLDER))
        block = self._blocks[self._next_block]
        self._next_block = (self._next_block + 1) % BLOCKS
        return block.replace(_PLACED % _PLACEHOLDER, _PLACED % (self._clock.now() + self._skew))


class _Pace:
    """The schedule of ticks."""

    def __init__(self, rate: float, silence: float) -> None:
        self._interval = 1 / rate if rate else 0.0
        self._silence = silence
        self._start = trio.current_time()
        self._next_tick = self._start
        self._last_write = -math.inf

    async def due(self) -> int:
        """Wait until at least one tick is due; returns how many are. At full speed it returns 1 at once."""
        if not self._interval:
            await self._keep_silence()
            return 1
        await trio.sleep_until(max(self._next_tick, self._last_write + WRITE_INTERVAL))
        await self._keep_silence()
        now = self._last_write = trio.current_time()
        self._next_tick = max(self._next_tick, now - CATCH_UP)
        ticks = int((now - self._next_tick) / self._interval) + 1
        self._next_tick += ticks * self._interval
        return ticks

    async def _keep_silence(self) -> None:
        if not self._silence:
            return
        now = trio.current_time()
        spoken = (now - self._start) % (2 * self._silence)
        if spoken >= self._silence:
            self._next_tick = now + 2 * self._silence - spoken
            await trio.sleep_until(self._next_tick)
