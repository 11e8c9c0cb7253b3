"""The markets of a fake venue: one seeded sequence of trades for each pair. No I/O."""

from __future__ import annotations

import math
import random
from collections import deque
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from marketflow.app.ports import Clock

Side = Literal["buy", "sell"]

START_PRICES: Final = {"BTC": 100_000.0, "ETH": 3_050.0, "SOL": 200.0, "TON": 3.9, "DOGE": 0.3}
"""By the beginning of a symbol. Bitfinex puts a `t` before it."""
OTHER_START_PRICE: Final = 100.0
STEP: Final = 0.0002
"""The largest change from one trade to the next, as a fraction of the price."""
RANGE: Final = 4.0
"""A price stays within its start price times or divided by this."""

MEDIAN_VALUE: Final = 400.0
"""What half of the trades are worth at most, in the quote currency."""
SPREAD: Final = 1.3
"""The standard deviation of the logarithm of a size."""
SIZES: Final = 300
"""The number of different sizes of a pair. To draw and to format one takes longer than the rest of
a trade."""

RECENT: Final = 50
"""Trades of a pair that are older than the venue itself, and the most that `recent` returns."""
AGE: Final = 25_000
"""How old (ms) the newest of these is when the venue begins."""

_NS: Final = 1_000_000
"""Nanoseconds in a millisecond."""


class Trade(NamedTuple):
    """One trade."""

    symbol: str
    """In the venue's spelling."""
    id: int
    """Ids of a pair have no gaps."""
    time: int
    """Unix nanoseconds; never less than that of the trade before."""
    price: str
    """As it is written on the wire."""
    size: str
    """As it is written on the wire, in the base currency."""
    side: Side
    """The taker's."""

    @property
    def timestamp(self) -> int:
        """Unix ms, rounded down."""
        return self.time // _NS

    def at_price(self, price: str) -> Trade:
        """The same trade at another price."""
        return self._replace(price=price)

    def at_time(self, time: int) -> Trade:
        """The same trade at another time."""
        return self._replace(time=time)


class Market:
    """All pairs of a venue.

    The nth trade of a pair depends only on the seed, except for its time, and for its id, which continues
    from the time of the start: a venue that is started again repeats no ids.
    """

    def __init__(self, symbols: Iterable[str], seed: int, clock: Clock, keep: int | None = None) -> None:
        """Make pairs that have some old trades each.

        Args:
            symbols: the pairs, in the venue's spelling.
            seed: gives the same trades each time.
            clock: the time of the trades.
            keep: how many trades `made` keeps at least; None: all.
        """
        self._clock = clock
        self._rng = random.Random(f"{seed}")  # noqa: S311 - made-up trades are no secret
        self._pairs = {symbol: _Pair(symbol, seed, clock.now()) for symbol in symbols}
        self._open: list[_Pair] = []
        self._keep = keep
        self._time = 0
        self.count = 0
        """The number of trades since the start."""
        self.made: list[Trade] = []
        """The trades since the start, the oldest first."""

    @property
    def symbols(self) -> Sequence[str]:
        """The pairs."""
        return list(self._pairs)

    @property
    def trading(self) -> bool:
        """Whether any pair has trades."""
        return bool(self._open)

    def lists(self, symbol: object) -> bool:
        """Whether the venue has this pair."""
        return isinstance(symbol, str) and symbol in self._pairs

    def delist(self, symbol: str) -> None:
        """Take a pair off the venue: it has no more trades."""
        pair = self._pairs.pop(symbol)
        if pair in self._open:
            self._open.remove(pair)

    def open(self, symbol: str) -> None:
        """Let a pair have trades, from its first subscription on: so a client can have got all of them."""
        pair = self._pairs[symbol]
        if pair not in self._open:
            self._open.append(pair)

    def recent(self, symbol: str, count: int) -> Sequence[Trade]:
        """The newest trades of a pair, the oldest first."""
        return list(self._pairs[symbol].recent)[-count:] if count else ()

    def trade(self, count: int, symbol: str | None = None) -> Sequence[Trade]:
        """Make trades of one pair, or of any open pairs, at the current time."""
        pairs = self._open if symbol is None else [self._pairs[symbol]]
        if not pairs:
            return ()
        draw, chosen, last = self._rng.random, len(pairs), self._time
        # Real trades are within a millisecond too, so that rounding can go wrong.
        now = self._clock.now() * _NS + int(draw() * _NS)
        trades = []
        for _ in range(count):
            pair = pairs[int(draw() * chosen)] if chosen > 1 else pairs[0]
            last = max(now, last + 1)
            trades.append(pair.next(last))
        self._time = last
        self.made += trades
        self.count += count
        if self._keep is not None and len(self.made) > 2 * self._keep:
            del self.made[: -self._keep]
        return trades


class _Pair:
    """The trades of one pair."""

    def __init__(self, symbol: str, seed: int, now: int) -> None:
        self.symbol = symbol
        self._rng = random.Random(f"{seed}/{symbol}")  # noqa: S311 - the same
        self._walk = _Walk(symbol)
        self._sizes = _sizes(self._walk.price, self._rng)
        self._id = now * 1_000
        self.recent: deque[Trade] = deque(maxlen=RECENT)
        for age in range(RECENT, 0, -1):
            self.next((now - AGE - age * 1_000) * _NS)

    def next(self, time: int) -> Trade:
        """The next trade."""
        draw = self._rng.random
        self._id += 1
        side: Side = "buy" if draw() < 0.5 else "sell"  # noqa: PLR2004 - as often as the other
        trade = Trade(
            self.symbol, self._id, time, self._walk.next(draw()), self._sizes[int(draw() * SIZES)], side
        )
        self.recent.append(trade)
        return trade


class _Walk:
    """The price of a pair."""

    def __init__(self, symbol: str) -> None:
        self._start = next(
            (
                price
                for base, price in START_PRICES.items()
                if symbol.upper().startswith(base) or symbol.startswith(f"t{base}")
            ),
            OTHER_START_PRICE,
        )
        self.price = self._start
        # Five significant digits at the start; the tick of bitcoin is a cent.
        self._digits = max(2, 4 - math.floor(math.log10(self._start)))

    def next(self, chance: float) -> str:
        """The price after the next step, as text. `chance` is from 0 to 1."""
        price = self.price * (1 + STEP * (2 * chance - 1))
        self.price = min(max(price, self._start / RANGE), self._start * RANGE)
        return f"{self.price:.{self._digits}f}"


def _sizes(price: float, rng: random.Random) -> Sequence[str]:
    """Log-normally distributed sizes, as text."""
    median = math.log(MEDIAN_VALUE / price)
    return [f"{max(rng.lognormvariate(median, SPREAD), 1e-6):.8f}" for _ in range(SIZES)]
