"""Generated prices and volumes, which replace an exchange in the test mode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from marketflow.adapters.exchange.fair import COMMON_SEED, FairPrices
from marketflow.adapters.exchange.lines import Lines
from marketflow.adapters.exchange.volumes import Volumes, tick_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marketflow.adapters.exchange.walk import Prices
    from marketflow.app.ports import Clock, Decode, Intake

CATCH_UP: Final = 0.5
"""Seconds. If ticks are later than this, the missed ones are skipped."""


def generator_source(
    exchange: str, symbols: Sequence[str], rate: float, clock: Clock, decode: Decode[Lines]
) -> GeneratorSource:
    """An exchange of the test mode. All have the same market, and each its own trades."""
    prices = FairPrices(exchange, symbols, COMMON_SEED)
    return GeneratorSource(
        exchange, prices, rate, clock, decode, Volumes(symbols, f"{COMMON_SEED}/{exchange}")
    )


class GeneratorSource:
    """Implements the port `Source`: `rate` ticks a second, each with one line for each symbol.

    The lines go through the same codec as those of a real exchange. They need no framing.
    """

    def __init__(
        self,
        exchange: str,
        prices: Prices,
        rate: float,
        clock: Clock,
        decode: Decode[Lines],
        volumes: Volumes | None = None,
    ) -> None:
        self.exchange = exchange
        self.decode = decode
        self._prices = prices
        self._volumes = volumes
        self._interval = 1 / rate
        self._clock = clock

    async def run(self, intake: Intake[Lines]) -> None:
        """Send ticks until the stop. Raises only the errors of the intake."""
        intake.connected()
        ticks = self.ticks()
        # No `received`: a tick may be further away than the idle timeout.
        while not intake.stopping:
            lines = await intake.outside(ticks.next)
            if lines is not None:
                await intake.send(Lines(lines, 0, self._clock.now(), trio.current_time()))

    def ticks(self) -> Ticks:
        """Ticks on a schedule that starts now."""
        return Ticks(self._prices, self._volumes, self._interval, self._clock)


class Ticks:
    """Ticks on a schedule. Each has the prices of the time at which it is made."""

    def __init__(self, prices: Prices, volumes: Volumes | None, interval: float, clock: Clock) -> None:
        self._prices = prices
        self._volumes = volumes
        self._interval = interval
        self._clock = clock
        self._next_tick = trio.current_time()

    async def next(self) -> bytes:
        """Wait until the next tick is due; returns its lines."""
        self._next_tick = max(self._next_tick, trio.current_time() - CATCH_UP)
        await trio.sleep_until(self._next_tick)
        # After the sleep, so that a cancelled wait loses no tick.
        self._next_tick += self._interval
        timestamp = self._clock.now()
        return b"".join(tick_lines(self._prices.at(timestamp), timestamp, self._volumes))
