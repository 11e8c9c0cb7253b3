"""The interface of simulated prices, and their first kind: a random walk, as on the provided exchanges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Sequence

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

# Without a lower limit, steps of per cents reach zero within weeks.
LOWEST: Final = 1e-9
HIGHEST: Final = 1e12


class Prices(Protocol):
    """The prices of one exchange's symbols."""

    def at(self, timestamp: int) -> Sequence[tuple[str, float]]:
        """Symbols and their prices at that time (ms), in the order of the symbols."""


class Walk:
    """Prices of one exchange that move by a step with every call. They are always finite and above zero."""

    def __init__(self, symbols: Iterable[str], rng: random.Random) -> None:
        self._rng = rng
        self._prices = {symbol: START_PRICES.get(symbol, OTHER_START_PRICE) for symbol in symbols}

    def at(self, timestamp: int) -> Sequence[tuple[str, float]]:  # noqa: ARG002 - a step is one at any time
        """The prices after the next step."""
        for symbol, price in self._prices.items():
            self._prices[symbol] = min(max(self._step(symbol, price), LOWEST), HIGHEST)
        return list(self._prices.items())

    def _step(self, symbol: str, price: float) -> float:
        if symbol == BITCOIN:
            return max(price + self._rng.uniform(-BITCOIN_STEP, BITCOIN_STEP), price * LOWEST_FACTOR)
        return price * (1 + self._rng.uniform(-STEP, STEP))
