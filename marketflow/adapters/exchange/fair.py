"""Believable prices: each symbol has one fair price, which each exchange quotes with a little noise and lag.

A price is a function of only the seed, the exchange, the symbol and the time. So exchanges in different
processes agree on the fair price if they have the same seed, and a restarted exchange continues with the
market's current price.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Final, NamedTuple

import attrs

from marketflow.adapters.exchange.walk import OTHER_START_PRICE, START_PRICES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

COMMON_SEED: Final = 0
"""The default seed. It is fixed, so that exchanges which are started separately simulate the same market."""


@attrs.frozen
class Symbol:
    """The parameters of a symbol's simulated price."""

    volatility: float
    """The standard deviation of the fair price's change within a second, as a fraction of the price."""
    digits: int
    """Digits behind the decimal point: the tick size is 10 ** -digits."""


SYMBOLS: Final = {
    "BTCUSDT": Symbol(0.0002, 2),
    "DOGEUSDT": Symbol(0.00035, 5),
    "TONUSDT": Symbol(0.0003, 4),
    "SOLUSDT": Symbol(0.0003, 2),
    "ETHUSDT": Symbol(0.00025, 2),
}
OTHER_SYMBOL: Final = Symbol(0.0003, 3)

FAIR_SCALES: Final = tuple(0.125 * 4**layer for layer in range(10))
"""Seconds, from an eighth of a second to nine hours. Within these the fair price moves like a random walk;
over longer times it stays around the start price."""
NOISE_SCALES: Final = (0.5, 2.0, 8.0)
"""Seconds. An exchange's deviation from the fair price has no memory beyond the longest of these scales."""
NOISE: Final = 0.4
"""The standard deviation of an exchange's deviation, as a multiple of the symbol's volatility."""
MOST_LAG: Final = 0.25
"""The most seconds that an exchange lags behind the fair price."""

# The standard deviation of the change within a second of a noise whose amplitudes are the roots of its
# scales.
_CHANGE_WITHIN_A_SECOND: Final = 0.79


class FairPrices:
    """The prices that one exchange quotes."""

    def __init__(self, exchange: str, symbols: Iterable[str], seed: int) -> None:
        self._lag = MOST_LAG * _uniform(f"{seed}/{exchange}/lag")
        self._quotes = [_Quote(exchange, symbol, seed) for symbol in symbols]
        self._timestamp: int | None = None
        self._prices: Sequence[tuple[str, float]] = ()

    def at(self, timestamp: int) -> Sequence[tuple[str, float]]:
        """Symbols and their prices at that time (ms), in the order of the symbols."""
        if timestamp != self._timestamp:
            now = timestamp / 1_000
            self._prices = [(quote.symbol, quote.at(now, now - self._lag)) for quote in self._quotes]
            self._timestamp = timestamp
        return self._prices


class _Quote:
    """The price of one symbol on one exchange."""

    def __init__(self, exchange: str, symbol: str, seed: int) -> None:
        self.symbol = symbol
        kind = SYMBOLS.get(symbol, OTHER_SYMBOL)
        self._start = START_PRICES.get(symbol, OTHER_START_PRICE)
        self._digits = kind.digits
        roots = [math.sqrt(scale) for scale in FAIR_SCALES]
        change = kind.volatility / _CHANGE_WITHIN_A_SECOND
        self._fair = Noise(f"{seed}/{symbol}", FAIR_SCALES, [change * root for root in roots])
        # The variance of a layer is 2/9 of its amplitude squared.
        even = NOISE * kind.volatility / math.sqrt(len(NOISE_SCALES) * 2 / 9)
        self._deviation = Noise(f"{seed}/{symbol}/{exchange}", NOISE_SCALES, [even] * len(NOISE_SCALES))

    def at(self, now: float, seen: float) -> float:
        """The price at `now` (s) on an exchange that knows the fair price of `seen` (s)."""
        exponent = self._fair.at(seen) + self._deviation.at(now)
        return round(self._start * math.exp(exponent), self._digits)


class Noise:
    """A bounded random curve around 0, which can be evaluated at any time.

    It is a sum of layers. A layer has a uniformly distributed random value at each multiple of its scale, and
    straight lines in between. The values are hashes of the seed and the multiple, so none has to be stored.
    """

    def __init__(self, seed: str, scales: Sequence[float], amplitudes: Sequence[float]) -> None:
        self.bound = sum(amplitudes)
        self._layers = [
            _Layer(f"{seed}/{scale}", scale, amplitude)
            for scale, amplitude in zip(scales, amplitudes, strict=True)
        ]
        # As long as no layer begins a new line, the sum is one straight line; the last one is cached.
        self._line = _Line(math.nan, math.nan, 0.0, 0.0)

    def at(self, seconds: float) -> float:
        """Its value, from -bound to bound."""
        line = self._line
        if not line.begin <= seconds < line.end:
            line = self._line = self._line_at(seconds)
        return line.value + line.slope * (seconds - line.begin)

    def _line_at(self, seconds: float) -> _Line:
        lines = [layer.line_at(seconds) for layer in self._layers]
        begin = max([line.begin for line in lines])
        return _Line(
            begin=begin,
            end=min([line.end for line in lines]),
            value=sum([line.value + line.slope * (begin - line.begin) for line in lines]),
            slope=sum([line.slope for line in lines]),
        )


class _Line(NamedTuple):
    """A straight line from `begin` to `end` (s)."""

    begin: float
    end: float
    value: float
    """The value at `begin`."""
    slope: float
    """The change in a second."""


class _Layer:
    """One layer of a noise."""

    def __init__(self, seed: str, scale: float, amplitude: float) -> None:
        self._seed = seed
        self._scale = scale
        self._amplitude = amplitude
        # An offset for each layer: otherwise lines of all layers would begin at the same moments.
        self._offset = scale * _uniform(seed)
        self._line = _Line(math.nan, math.nan, 0.0, 0.0)

    def line_at(self, seconds: float) -> _Line:
        """The line at this moment."""
        line = self._line
        if not line.begin <= seconds < line.end:
            multiple = math.floor((seconds - self._offset) / self._scale)
            value = self._value(multiple)
            begin = multiple * self._scale + self._offset
            slope = (self._value(multiple + 1) - value) / self._scale
            line = self._line = _Line(begin, begin + self._scale, value, slope)
        return line

    def _value(self, multiple: int) -> float:
        return self._amplitude * (2 * _uniform(f"{self._seed}/{multiple}") - 1)


def _uniform(key: str) -> float:
    """A pseudo-random number from 0 to 1, determined by the key."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest()) / 2**56
