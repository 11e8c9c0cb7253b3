"""A simulated exchange: a TCP server with the lines and the pace of the real ones, and faults to order."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Final

import attrs
import structlog
import trio

from marketflow.adapters.exchange.walk import Walk
from marketflow.adapters.exchange.wire import encode_line
from marketflow.app.clocks import SystemClock
from marketflow.domain.lines import LINE_LIMIT
from marketflow.domain.prices import SYMBOLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marketflow.app.ports import Clock

WRITE_INTERVAL: Final = 0.01
"""Seconds: at higher rates several ticks go into one write, so that no CPU goes into waking up."""
CATCH_UP: Final = 0.5
"""Seconds: of ticks that are later than this (the reader was slow), the missed ones are left out."""
BLOCK_TICKS: Final = 180
"""Ticks of one write at full speed: some 64 KiB with five symbols."""
BLOCKS: Final = 32
"""Different blocks at full speed, sent over and over with new timestamps."""

# Stands for the timestamp in a block that is sent more than once.
_PLACEHOLDER: Final = 1_000_000_000_000
_PLACED: Final = b'"timestamp":%d}'

GARBAGE: Final = (
    b"hello",
    b"HTTP/1.1 400 Bad Request",
    b"\x00\x01\x02\xff\xfe",
    b"null",
    b"[]",
    b"{}",
    b"{",
    b"}{",
    b'"BTCUSDT"',
    b'["BTCUSDT",1.5,1795343351549]',
    b'{"symbol":"BTCUSDT","price":100150.7549',
    b'"price":100150.7549,"timestamp":1795343351549}',
    b'{"symbol":"BTCUSDT","price":1.5}',
    b'{"symbol":"BTCUSDT","price":"1.5","timestamp":1795343351549}',
    b'{"symbol":"BTCUSDT","price":null,"timestamp":1795343351549}',
    b'{"symbol":"BTCUSDT","price":true,"timestamp":1795343351549}',
    b'{"symbol":"BTCUSDT","price":NaN,"timestamp":1795343351549}',
    b'{"symbol":"BTCUSDT","price":Infinity,"timestamp":1795343351549}',
    b'{"symbol":"BTCUSDT","price":1e400,"timestamp":1795343351549}',
    b'{"symbol":"BTCUSDT","price":0,"timestamp":1795343351549}',
    b'{"symbol":"BTCUSDT","price":-1.5,"timestamp":1795343351549}',
    b'{"symbol":"BTCUSDT","price":1e-400,"timestamp":1795343351549}',
    b'{"symbol":"BTCUSDT","price":1.5,"timestamp":1795343351549.0}',
    b'{"symbol":"BTCUSDT","price":1.5,"timestamp":"1795343351549"}',
    b'{"symbol":"BTCUSDT","price":1.5,"timestamp":17}',
    b'{"symbol":"BTCUSDT","price":1.5,"timestamp":99999999999999999999999999999999999999999}',
    b'{"symbol":null,"price":1.5,"timestamp":1795343351549}',
    b'{"symbol":"nothing","price":1.5,"timestamp":1795343351549}',
    b'{"symbol":"BTC\xff","price":1.5,"timestamp":1795343351549}',
    b'{"symbol":"BTCUSDT","price":1.5,"timestamp":1795343351549,"note":"\xc3"}',
    b'{"symbol":"BTCUSDT","price":1.5,"timestamp":1}{"symbol":"BTCUSDT","price":1.5,"timestamp":1}',
    b'{"symbol":"BTCUSDT","price":1.5,"timestamp":1,"note":' + b"[" * 3_000 + b"]" * 3_000 + b"}",
    b"x" * (LINE_LIMIT + 2),
)
"""Lines that are to be rejected, without their newlines."""

logger = structlog.get_logger()


@attrs.frozen
class Faults:
    """What a simulated exchange does wrong. Zero: it does not."""

    close_every: float = 0.0
    """Seconds after which each connection is closed."""
    garbage: float = 0.0
    """The part (0 to 1) of the lines that are replaced by garbage; each is to be rejected once."""
    silence: float = 0.0
    """Seconds: after so much traffic nothing is sent for as long, again and again."""
    half_lines: float = 0.0
    """The part (0 to 1) of the writes that end within a line. Its rest begins the next write, if any."""
    skew: float = 0.0
    """Seconds that the exchange's clock is ahead of ours; may be negative."""


NO_FAULTS: Final = Faults()


async def simulate(
    *,
    name: str,
    host: str,
    port: int,
    rate: float = 10,
    seed: int | None = None,
    symbols: Sequence[str] = SYMBOLS,
    faults: Faults = NO_FAULTS,
    clock: Clock | None = None,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; started with the port that it listens on (`port` 0: any).

    Each connection gets `rate` ticks a second, a tick being one line a symbol; with `rate` 0 as many as its
    reader takes. All see the same walk of prices. A slow reader slows only itself; one that goes away ends
    only its connection.

    Raises:
        OSError: it cannot listen there.
    """
    rng = random.Random(seed)  # noqa: S311 - made-up prices are no secret
    exchange = _Exchange(
        log=logger.bind(exchange=name),
        rng=rng,
        walk=Walk(symbols, rng),
        rate=rate,
        faults=faults,
        clock=clock or SystemClock(),
    )
    listeners = await trio.open_tcp_listeners(port, host=host)
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, exchange.serve, listeners)
        bound: int = listeners[0].socket.getsockname()[1]
        exchange.log.info("exchange listening", host=host, port=bound)
        task_status.started(bound)


@attrs.define
class _Exchange:
    """What all connections share."""

    log: structlog.typing.FilteringBoundLogger
    _rng: random.Random
    _walk: Walk
    _rate: float
    _faults: Faults
    _clock: Clock
    _connections: int = 0
    _blocks: list[bytes] = attrs.field(factory=list)
    _next_block: int = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection, until it is time to close it or the client has gone."""
        self._connections += 1
        log = self.log.bind(connection=self._connections)
        log.info("client connected")
        try:
            with trio.move_on_after(self._faults.close_every or math.inf):
                await self._write(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            log.info("client gone", error=str(error.__cause__ or error))
        else:
            log.info("client closed")

    async def _write(self, stream: trio.SocketStream) -> None:
        pace = _Pace(self._rate, self._faults.silence)
        held = b""
        while True:
            ticks = await pace.due()
            data = held + (self._lines(ticks) if self._rate else self._block())
            end = self._end_of_write(data)
            held = data[end:]
            await stream.send_all(data[:end])

    def _end_of_write(self, data: bytes) -> int:
        if self._rng.random() >= self._faults.half_lines:
            return len(data)
        end = self._rng.randrange(1, len(data))
        return end - 1 if data[end - 1 : end] == b"\n" else end

    def _now(self) -> int:
        return self._clock.now() + round(self._faults.skew * 1_000)

    def _lines(self, ticks: int, timestamp: int | None = None) -> bytes:
        """The next ticks, all of them of now."""
        if timestamp is None:
            timestamp = self._now()
        lines = [
            encode_line(symbol, price, timestamp) for _ in range(ticks) for symbol, price in self._walk.tick()
        ]
        if self._faults.garbage:
            lines = [
                self._rng.choice(GARBAGE) + b"\n" if self._rng.random() < self._faults.garbage else line
                for line in lines
            ]
        return b"".join(lines)

    def _block(self) -> bytes:
        """The next ticks at full speed: it takes more time to write prices as text than to send them."""
        if len(self._blocks) < BLOCKS:
            self._blocks.append(self._lines(BLOCK_TICKS, _PLACEHOLDER))
        block = self._blocks[self._next_block]
        self._next_block = (self._next_block + 1) % BLOCKS
        return block.replace(_PLACED % _PLACEHOLDER, _PLACED % self._now())


class _Pace:
    """When one connection's ticks are due. The schedule begins with the connection."""

    def __init__(self, rate: float, silence: float) -> None:
        self._interval = 1 / rate if rate else 0.0
        self._silence = silence
        self._start = trio.current_time()
        self._next_tick = self._start
        self._last_write = -math.inf

    async def due(self) -> int:
        """Wait until one tick is due at least; how many are. At full speed: 1, at once."""
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
