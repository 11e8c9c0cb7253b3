"""Believable prices: one fair price a symbol, and exchanges that each quote it with a little noise and lag.

A price is a function of the seed, the exchange, the symbol and the time, and of nothing else. So exchanges
in different processes agree on the fair price if they have the same seed, and one that was restarted goes on
where the market is by then.
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
"""The default seed: one for all, so that exchanges which are started one by one are of one market."""


@attrs.frozen
class Symbol:
    """How a symbol trades."""

    volatility: float
    """Standard deviation of the fair price's change within a second, as a part of the price."""
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
"""Seconds. An exchange's deviation from the fair price is forgotten after the longest of them."""
NOISE: Final = 0.4
"""Standard deviation of an exchange's deviation, in parts of the symbol's volatility."""
MOST_LAG: Final = 0.25
"""Seconds that an exchange is behind the fair price at most."""

# A noise whose amplitudes are the roots of its scales (s) changes by this within a second.
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
        """The price now (s), of an exchange that knows the fair price of `seen` (s)."""
        exponent = self._fair.at(seen) + self._deviation.at(now)
        return round(self._start * math.exp(exponent), self._digits)


class Noise:
    """A random curve over time, around 0 and bounded, which can be asked for at any time.

    It is a sum of layers. A layer has a random value, evenly distributed, at each multiple of its scale, and
    straight lines in between. The values come from a hash of the seed and the multiple: none is remembered.
    """

    def __init__(self, seed: str, scales: Sequence[float], amplitudes: Sequence[float]) -> None:
        self.bound = sum(amplitudes)
        self._layers = [
            _Layer(f"{seed}/{scale}", scale, amplitude)
            for scale, amplitude in zip(scales, amplitudes, strict=True)
        ]
        # Between two ends of any layer's lines the sum is one straight line: the last one is kept.
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
    """At its begin."""
    slope: float
    """A second."""


class _Layer:
    """One layer of a noise."""

    def __init__(self, seed: str, scale: float, amplitude: float) -> None:
        self._seed = seed
        self._scale = scale
        self._amplitude = amplitude
        # Lines of different layers that began at the same moments would all be steep or flat together.
        self._offset = scale * _uniform(seed)
        self._line = _Line(math.nan, math.nan, 0.0, 0.0)

    def line_at(self, seconds: float) -> _Line:
        """The line that this moment is on."""
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
    """A number from 0 to 1 that looks random, always the same one for a key."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest()) / 2**56
