"""Believable volumes and sides of simulated updates. They do not depend on the prices."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Final

from marketflow.adapters.exchange.walk import OTHER_START_PRICE, START_PRICES
from marketflow.adapters.exchange.wire import encode_line, encode_told

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MEDIAN_VALUE: Final = 400.0
"""What half of the trades are worth at most, in the quote currency."""
SPREAD: Final = 1.3
"""The standard deviation of the logarithm of a size: one trade in a hundred is twenty times the median."""
POOL: Final = 300
"""The number of different trades of symbols with the same first price. To draw a size and to format it takes
longer than the rest of a line; to pick one of these takes a tenth of that."""


class Volumes:
    """What is traded with each tick of one exchange. A seed gives the same trades each time.

    The random numbers are drawn from a generator of its own: prices of a seed are the same with volumes and
    without.
    """

    def __init__(self, symbols: Iterable[str], seed: str | None) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - made-up volumes are no secret
        medians = [MEDIAN_VALUE / START_PRICES.get(symbol, OTHER_START_PRICE) for symbol in symbols]
        pools = {median: _pool(median, self._rng) for median in dict.fromkeys(medians)}
        self._pools = [pools[median] for median in medians]

    def next(self) -> Sequence[str]:
        """What the lines of the next tick tell, in the order of the symbols."""
        draw = self._rng.random
        return [pool[int(draw() * POOL)] for pool in self._pools]


def tick_lines(
    prices: Sequence[tuple[str, float]], timestamp: int, volumes: Volumes | None
) -> Sequence[bytes]:
    """The lines of one tick, one for each symbol. With `volumes` they tell what was traded."""
    if volumes is None:
        return [encode_line(symbol, price, timestamp) for symbol, price in prices]
    return [
        encode_line(symbol, price, timestamp, told)
        for (symbol, price), told in zip(prices, volumes.next(), strict=True)
    ]


def _pool(median: float, rng: random.Random) -> Sequence[str]:
    """Trades of log-normally distributed sizes, with three significant digits at the median."""
    digits = max(0, 2 - math.floor(math.log10(median)))
    sizes = [
        max(round(rng.lognormvariate(math.log(median), SPREAD), digits), 10.0**-digits) for _ in range(POOL)
    ]
    return [encode_told(size, rng.choice(("buy", "sell"))) for size in sizes]
