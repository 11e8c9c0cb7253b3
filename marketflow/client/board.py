"""What the live table shows: the newest price of each pair, and how the service is. Pure; times are given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from marketflow.client.answers import Health, Price

OFF: Final = "off"
"""The status of an exchange of the other mode."""


@attrs.frozen
class Quote:
    """The newest price of a pair, and whither it went."""

    price: float
    timestamp: int
    """Unix ms."""
    change: int
    """1: the last change was upwards, -1: downwards, 0: there was none yet."""


@attrs.frozen
class Spread:
    """How far the exchanges are apart."""

    amount: float
    part: float
    """Of the lowest price."""


@attrs.define
class Board:
    """The state of the table. Whoever learns something puts it in; whoever draws looks at it."""

    only: str | None = None
    """The one column that is wanted; None: those of the mode."""
    symbols: Sequence[str] = ()
    """The rows, in this order."""
    health: Health | None = None
    """None while nobody could be asked."""
    trouble: str | None = "connecting"
    """Why there are no prices just now; None: there are."""
    _quotes: dict[tuple[str, str], Quote] = attrs.field(factory=dict)

    def enter(self, prices: Iterable[Price]) -> None:
        """Take prices in. What is older than what is known changes nothing: a stream begins with old news."""
        for new in prices:
            pair = new.exchange, new.symbol
            old = self._quotes.get(pair)
            if old is not None and new.timestamp < old.timestamp:
                continue
            change = 0
            if old is not None:
                change = (new.price > old.price) - (new.price < old.price) or old.change
            self._quotes[pair] = Quote(new.price, new.timestamp, change)

    def quote(self, exchange: str, symbol: str) -> Quote | None:
        """The newest of a pair; None before the first."""
        return self._quotes.get((exchange, symbol))

    @property
    def exchanges(self) -> list[str]:
        """The columns. As long as nobody has said which exchanges are the mode's: all that were seen."""
        if self.only is not None:
            return [self.only]
        if self.health is None:
            return sorted({exchange for exchange, _ in self._quotes})
        return [name for name, health in self.health.exchanges.items() if health.status != OFF]

    def status(self, exchange: str) -> str | None:
        """How an exchange is; None where nobody knows."""
        found = None if self.health is None else self.health.exchanges.get(exchange)
        return None if found is None else found.status

    def stale(self, exchange: str) -> bool:
        """Whether its prices are not those of the moment."""
        return self.trouble is not None or self.status(exchange) not in {"connected", None}

    def spread(self, symbol: str) -> Spread | None:
        """Between the exchanges whose prices are not stale; None of fewer than two."""
        prices = [
            quote.price
            for exchange in self.exchanges
            if not self.stale(exchange) and (quote := self.quote(exchange, symbol)) is not None
        ]
        if len(prices) < 2:  # noqa: PLR2004
            return None
        lowest, highest = min(prices), max(prices)
        return Spread(highest - lowest, (highest - lowest) / lowest)
