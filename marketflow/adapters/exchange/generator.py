"""Generated prices in place of an exchange, for the test mode."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from marketflow.adapters.exchange.wire import encode_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from marketflow.adapters.exchange.walk import Prices
    from marketflow.app.ports import Clock

CATCH_UP: Final = 0.5
"""Seconds: of ticks that are later than this, the missed ones are left out."""


class GeneratorSource:
    """Fills the port `Source`: `rate` ticks a second, each one line a symbol.

    All its connections have the same prices, of the time at which each tick is made.
    """

    def __init__(self, exchange: str, prices: Prices, rate: float, clock: Clock) -> None:
        self._exchange = exchange
        self._prices = prices
        self._interval = 1 / rate
        self._clock = clock

    @property
    def exchange(self) -> str:
        """The exchange's name."""
        return self._exchange

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[GeneratorConnection]:
        """Never fails."""
        await trio.lowlevel.checkpoint()
        yield GeneratorConnection(self._prices, self._interval, self._clock)


class GeneratorConnection:
    """Fills the port `Connection`. Ticks keep to a schedule that starts with the connection."""

    def __init__(self, prices: Prices, interval: float, clock: Clock) -> None:
        self._prices = prices
        self._interval = interval
        self._clock = clock
        self._next_tick = trio.current_time()

    async def receive(self) -> bytes:
        """The lines of the next tick, when its time has come."""
        self._next_tick = max(self._next_tick, trio.current_time() - CATCH_UP)
        await trio.sleep_until(self._next_tick)
        # After the sleep, so that a cancelled receive takes no tick with it.
        self._next_tick += self._interval
        timestamp = self._clock.now()
        return b"".join(encode_line(symbol, price, timestamp) for symbol, price in self._prices.at(timestamp))
