"""Three exchanges in a separate thread, for tests that wait for a browser."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress

import trio
from exchange_server import ExchangeServer, open_exchange

START_PRICES = {"BTCUSDT": 100_000.0, "DOGEUSDT": 0.3, "TONUSDT": 3.9, "SOLUSDT": 200.0, "ETHUSDT": 3_050.0}
SYMBOLS = tuple(START_PRICES)
NAMES = ("exchange1", "exchange2", "exchange3")

PACE = 0.1
"""Seconds between two lines of a symbol."""
STEP = 0.0002
"""The largest change of a price in a step, as a fraction."""
APART = 0.00008
"""The largest difference between exchanges, as a fraction."""


class Market:
    """Every exchange sends a line of every symbol each 0.1 s: the test's prices, or a random walk."""

    def __init__(self, token: trio.lowlevel.TrioToken, exchanges: dict[str, ExchangeServer]) -> None:
        self._token = token
        self._exchanges = exchanges
        self._rng = random.Random(7)
        self._walk = dict(START_PRICES)
        self._set: dict[tuple[str, str], float] = {}
        self._volumes: dict[str, tuple[float, str]] = {}
        self._silent: set[str] = set()
        self._sending = {name: trio.Lock() for name in NAMES}

    # ---- for the test's thread ----

    @property
    def ports(self) -> dict[str, int]:
        return {name: exchange.port for name, exchange in self._exchanges.items()}

    def set(self, symbol: str, **prices: float) -> None:
        """Set the prices of a symbol from now on, by exchange."""
        self._set |= {(name, symbol): price for name, price in prices.items()}

    def trade(self, name: str, volume: float, side: str = "buy") -> None:
        """Have an exchange tell this volume and side with each price from now on."""
        self._volumes[name] = volume, side

    def stop_trading(self, name: str) -> None:
        del self._volumes[name]

    def tell_history(self, seconds: int) -> None:
        """Send late lines for so many past seconds. Returns once all were sent."""
        self._call(self._tell_history, seconds)

    def silence(self, name: str) -> None:
        """Stay connected, but send nothing."""
        self._silent.add(name)

    def speak(self, name: str) -> None:
        self._silent.remove(name)

    def kill(self, name: str) -> None:
        """Reset the connection, and refuse new ones."""
        self._call(self._run, self._exchanges[name].kill)

    def listen(self, name: str) -> None:
        self._call(self._run, self._exchanges[name].listen)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        trio.from_thread.run(function, *arguments, trio_token=self._token)  # type: ignore[arg-type]

    # ---- in the exchanges' thread ----

    async def _run(self, function: Callable[[], None]) -> None:
        function()

    async def run(self, name: str) -> None:
        """Send to all clients."""
        while True:
            await trio.sleep(PACE)
            if name not in self._silent:
                await self._send(name, self._lines(name, time.time_ns() // 1_000_000))

    async def _tell_history(self, seconds: int) -> None:
        now = time.time_ns() // 1_000_000
        lines = {name: bytearray() for name in NAMES}
        for timestamp in range(now - seconds * 1_000, now, int(PACE * 1_000)):
            for name in NAMES:
                lines[name] += self._lines(name, timestamp)
        for name in NAMES:
            await self._send(name, bytes(lines[name]))

    async def _send(self, name: str, data: bytes) -> None:
        # This exchange or the service was killed; the service connects again.
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with self._sending[name]:
                await self._exchanges[name].send(data)

    def _lines(self, name: str, timestamp: int) -> bytes:
        return b"".join(self._line(name, symbol, timestamp) for symbol in SYMBOLS)

    def _line(self, name: str, symbol: str, timestamp: int) -> bytes:
        pair = name, symbol
        self._walk[symbol] *= 1 + self._rng.uniform(-STEP, STEP)
        here = self._walk[symbol] * (1 + self._rng.uniform(-APART, APART))
        price = self._set.get(pair, here)
        fields: dict[str, object] = {"symbol": symbol, "price": price, "timestamp": timestamp}
        if name in self._volumes:
            fields |= dict(zip(("volume", "side"), self._volumes[name], strict=True))
        return json.dumps(fields).encode() + b"\n"


@contextmanager
def open_market() -> Iterator[Market]:
    """Exchanges that run until the end of the block."""
    opened = threading.Event()
    found: list[Market] = []
    scope = trio.CancelScope()

    async def run() -> None:
        with scope:
            async with AsyncExitStack() as stack:
                exchanges = {name: await stack.enter_async_context(open_exchange()) for name in NAMES}
                market = Market(trio.lowlevel.current_trio_token(), exchanges)
                found.append(market)
                async with trio.open_nursery() as nursery:
                    for name in NAMES:
                        nursery.start_soon(market.run, name)
                    opened.set()

    thread = threading.Thread(target=trio.run, args=(run,), name="market")
    thread.start()
    assert opened.wait(10)
    try:
        yield found[0]
    finally:
        found[0]._token.run_sync_soon(scope.cancel)
        thread.join(10)
        assert not thread.is_alive()
