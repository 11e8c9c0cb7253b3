"""An update, and the rules for accepting one."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Final

import attrs
import msgspec

from marketflow.domain.bars import Bar
from marketflow.domain.columns import Side
from marketflow.domain.periods import floor_to

Pair = tuple[str, str]
"""(exchange, symbol)"""

SYMBOLS: Final = ("BTCUSDT", "DOGEUSDT", "TONUSDT", "SOLUSDT", "ETHUSDT")
FUTURE_TOLERANCE: Final = 5_000
"""How far, in ms, an exchange's clock may be ahead of ours."""

# The reasons for rejecting a line, in the order in which they are checked.
OVERSIZED: Final = "oversized"
MALFORMED: Final = "malformed"
SYMBOL: Final = "symbol"
PRICE: Final = "price"
FUTURE: Final = "future"
LATE: Final = "late"
DUPLICATE: Final = "duplicate"
UNDECIDED: Final = "undecided"
REASONS: Final = (OVERSIZED, MALFORMED, SYMBOL, PRICE, FUTURE, LATE, DUPLICATE, UNDECIDED)


@attrs.frozen
class PriceUpdate:
    """One accepted line."""

    exchange: str
    symbol: str
    price: float
    timestamp: int
    """The exchange's own time, Unix ms."""
    sequence: int
    """The order of receipt, which also grows from boot to boot. It decides between equal timestamps."""
    volume: float | None = None
    """In the base currency; None if its source did not tell it."""
    side: Side | None = None
    """Which side the taker was on, if its source told it."""
    id: str | None = None
    """The exchange's own id of the trade, if it has one."""


class Acceptance(msgspec.Struct, frozen=True):
    """The rules for the updates of lines that were received at the same time."""

    symbols: frozenset[str]
    earliest: int
    """The first timestamp (ms) that is not late."""
    latest: int
    """The last timestamp (ms) that is not in the future."""

    @classmethod
    def at(cls, received_at: int, *, symbols: frozenset[str], interval: int, lateness: int) -> Acceptance:
        """Rules for lines received at `received_at`; all times in ms.

        An update is late once `lateness` has passed since the end of the interval that it belongs to.
        """
        return cls(
            symbols=symbols,
            earliest=floor_to(received_at - lateness, interval),
            latest=received_at + FUTURE_TOLERANCE,
        )

    def takes(self, bar: Bar) -> bool:
        """Whether all updates of a bar are acceptable, apart from their symbol."""
        return bar.min > 0 and self.earliest <= bar.open_time and bar.close_time <= self.latest

    def reason_against(self, symbol: str, price: float, timestamp: int) -> str | None:
        """The first reason to reject a well-formed line, or None."""
        if symbol not in self.symbols:
            return SYMBOL
        if not price > 0:
            return PRICE
        if timestamp > self.latest:
            return FUTURE
        if timestamp < self.earliest:
            return LATE
        return None


def by_exchange(pairs: Iterable[Pair]) -> dict[str, list[Pair]]:
    """The pairs of each exchange, in order."""
    return {name: list(of_one) for name, of_one in groupby(sorted(pairs), key=lambda pair: pair[0])}
