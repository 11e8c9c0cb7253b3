"""Fake venues in a separate thread, for tests that wait for a browser."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import trio

from marketflow.adapters.exchange.fake_venues.server import FakeVenue

NAMES: Mapping[str, Mapping[str, str]] = {
    "kraken": {"BTCUSDT": "BTC/USDT", "ETHUSDT": "ETH/USDT", "DOGEUSDT": "DOGE/USDT", "SOLUSDT": "SOL/USDT"},
    "binance": {each: each.lower() for each in ("BTCUSDT", "ETHUSDT", "DOGEUSDT", "SOLUSDT", "TONUSDT")},
    "okx": {"BTCUSDT": "BTC-USDT", "ETHUSDT": "ETH-USDT", "DOGEUSDT": "DOGE-USDT", "TONUSDT": "TON-USDT"},
}
"""By venue our symbols with its names. Only Binance has all."""
RATE = 60
"""Trades a second of each."""


class Trading:
    """The venues. Their methods are for the test's thread."""

    def __init__(self, token: trio.lowlevel.TrioToken, venues: Mapping[str, FakeVenue]) -> None:
        self.token = token
        self._venues = venues

    @property
    def exchanges(self) -> list[dict[str, Any]]:
        """Their settings. They have the names of their kinds."""
        return [
            {"name": kind, "kind": kind, "url": venue.url, "symbols": NAMES[kind]}
            for kind, venue in self._venues.items()
        ]

    def lose(self, kind: str, symbol: str, count: int) -> None:
        """Make trades that no client gets."""

        def lose() -> None:
            venue = self._venues[kind]
            venue.mute()
            venue.trade(count, symbol)
            venue.unmute()

        self._run(lose)

    def cut(self, kind: str) -> None:
        """End all connections, and refuse new ones."""
        self._run(self._venues[kind].refuse)
        self._run(self._venues[kind].cut)

    def _run(self, function: Callable[[], None]) -> None:
        trio.from_thread.run_sync(function, trio_token=self.token)


@contextmanager
def open_trading(delisted: Mapping[str, str]) -> Iterator[Trading]:
    """Venues that trade until the end of the block, but for one delisted pair each, in their own spelling."""
    opened = threading.Event()
    found: list[Trading] = []
    scope = trio.CancelScope()

    async def run() -> None:
        with scope:
            async with AsyncExitStack() as stack:
                venues = {}
                for seed, kind in enumerate(NAMES):
                    venue = FakeVenue(kind, symbols=list(NAMES[kind].values()), rate=RATE, seed=seed)
                    venues[kind] = await stack.enter_async_context(venue)
                for kind, symbol in delisted.items():
                    venues[kind].delist(symbol)
                found.append(Trading(trio.lowlevel.current_trio_token(), venues))
                opened.set()
                await trio.sleep_forever()

    thread = threading.Thread(target=trio.run, args=(run,), name="trading")
    thread.start()
    try:
        assert opened.wait(10)
        yield found[0]
    finally:
        if found:
            found[0].token.run_sync_soon(scope.cancel)
        thread.join(10)
    assert not thread.is_alive()
