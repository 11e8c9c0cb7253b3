"""Prices that walk at random, as those of the exchanges do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

START_PRICES: Final = {
    "BTCUSDT": 100_000.0,
    "DOGEUSDT": 0.3,
    "TONUSDT": 3.9,
    "SOLUSDT": 200.0,
    "ETHUSDT": 3_050.0,
}
OTHER_START_PRICE: Final = 100.0

BITCOIN: Final = "BTCUSDT"
BITCOIN_STEP: Final = 250.0
LOWEST_FACTOR: Final = 0.99
STEP: Final = 0.01

# Left alone, steps of per cents come to zero within weeks.
LOWEST: Final = 1e-9
HIGHEST: Final = 1e12


class Walk:
    """The prices of some symbols, each tick a step further; finite and above zero for ever."""

    def __init__(self, symbols: Iterable[str], rng: random.Random) -> None:
        self._rng = rng
        self._prices = {symbol: START_PRICES.get(symbol, OTHER_START_PRICE) for symbol in symbols}

    def tick(self) -> list[tuple[str, float]]:
        """Symbols and their next prices, in the order of the symbols."""
        for symbol, price in self._prices.items():
            self._prices[symbol] = min(max(self._step(symbol, price), LOWEST), HIGHEST)
        return list(self._prices.items())

    def _step(self, symbol: str, price: float) -> float:
        if symbol == BITCOIN:
            return max(price + self._rng.uniform(-BITCOIN_STEP, BITCOIN_STEP), price * LOWEST_FACTOR)
        return price * (1 + self._rng.uniform(-STEP, STEP))
