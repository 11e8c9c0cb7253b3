"""The data of the live table: the newest price of each pair, and the service's health. Pure; no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from marketflow.client.answers import Health, Price

OFF: Final = "off"
"""The status of an exchange of the other mode."""


@attrs.frozen
class Quote:
    """The newest price of a pair, and the direction of its last change."""

    price: float
    timestamp: int
    """Unix ms."""
    change: int
    """1: the last change was upwards, -1: downwards, 0: there was none yet."""


@attrs.frozen
class Spread:
    """The difference between the highest and the lowest price of a symbol on several exchanges."""

    amount: float
    part: float
    """The difference as a fraction of the lowest price."""


@attrs.define
class TableState:
    """The state of the table: the readers of the service update it, the painter reads it."""

    only: str | None = None
    """The only column to show; None: all exchanges of the mode."""
    symbols: Sequence[str] = ()
    """The rows, in this order."""
    health: Health | None = None
    """None until the service has answered."""
    trouble: str | None = "connecting"
    """Why there are no prices at the moment; None if there are."""
    _quotes: dict[tuple[str, str], Quote] = attrs.field(factory=dict)

    def enter(self, prices: Iterable[Price]) -> None:
        """Add prices. Prices older than the known ones are ignored: a new stream repeats some."""
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
        """The newest price of a pair; None before the first."""
        return self._quotes.get((exchange, symbol))

    @property
    def exchanges(self) -> list[str]:
        """The columns. Until the mode's exchanges are known: all exchanges seen so far."""
        if self.only is not None:
            return [self.only]
        if self.health is None:
            return sorted({exchange for exchange, _ in self._quotes})
        return [name for name, health in self.health.exchanges.items() if health.status != OFF]

    def status(self, exchange: str) -> str | None:
        """The health of an exchange; None if unknown."""
        found = None if self.health is None else self.health.exchanges.get(exchange)
        return None if found is None else found.status

    def stale(self, exchange: str) -> bool:
        """Whether its prices are out of date."""
        return self.trouble is not None or self.status(exchange) not in {"connected", None}

    def spread(self, symbol: str) -> Spread | None:
        """The spread between exchanges whose prices are not stale; None for fewer than two."""
        prices = [
            quote.price
            for exchange in self.exchanges
            if not self.stale(exchange) and (quote := self.quote(exchange, symbol)) is not None
        ]
        if len(prices) < 2:  # noqa: PLR2004
            return None
        lowest, highest = min(prices), max(prices)
        return Spread(highest - lowest, (highest - lowest) / lowest)
