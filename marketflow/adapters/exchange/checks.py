"""The checks of updates, the same for every kind of source. No I/O."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Protocol

import attrs

from marketflow.app.ports import Decoded, Updates
from marketflow.domain.bars import by_second
from marketflow.domain.prices import SYMBOL, Acceptance

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class Quote(Protocol):
    """A well-formed message about a price; it need not be acceptable."""

    symbol: str
    price: float
    """A finite number."""
    timestamp: int
    """Unix ms."""


@attrs.frozen
class Checks:
    """Checks quotes, groups them by symbol and summarises them, for the codec of a source.

    The hot path: everything that can be is done for all quotes, or for all of a symbol, at once.
    """

    symbols: frozenset[str]
    interval: int
    """The aggregation interval, in ms."""
    lateness: int
    """How long after the end of its interval an update is still accepted, in ms."""

    def decoded(self, quotes: Sequence[Quote], rejected: Mapping[str, int], received_at: int) -> Decoded:
        """The content of a payload.

        Args:
            quotes: the well-formed messages, in the order of their receipt.
            rejected: the number of other messages, by reason.
            received_at: when they were received, Unix ms.
        """
        acceptance = Acceptance.at(
            received_at, symbols=self.symbols, interval=self.interval, lateness=self.lateness
        )
        reasons: defaultdict[str, int] = defaultdict(int, rejected)
        return Decoded(
            received=sum(rejected.values()) + len(quotes),
            updates=_accept(quotes, acceptance, reasons),
            rejected=dict(reasons),
        )


def _accept(
    quotes: Sequence[Quote], acceptance: Acceptance, rejected: defaultdict[str, int]
) -> Sequence[Updates]:
    """The acceptable quotes by symbol; the others are counted in `rejected`."""
    by_symbol: defaultdict[str, list[Quote]] = defaultdict(list)
    for quote in quotes:
        by_symbol[quote.symbol].append(quote)
    timestamps = [quote.timestamp for quote in quotes]
    # If all timestamps ascend, as they usually do, those of each symbol ascend too.
    ascending = timestamps == sorted(timestamps)
    accepted: list[Updates] = []
    for symbol, group in by_symbol.items():
        if symbol not in acceptance.symbols:
            rejected[SYMBOL] += len(group)
            continue
        updates = _updates(symbol, group, ascending=ascending)
        # Usually all updates are good. The bars show this without a check of each update.
        for bar in updates.bars.values():
            if not acceptance.takes(bar):
                break
        else:
            accepted.append(updates)
            continue
        if good := _filter(group, acceptance, rejected):
            accepted.append(_updates(symbol, good, ascending=ascending))
    return accepted


def _updates(symbol: str, quotes: Sequence[Quote], *, ascending: bool) -> Updates:
    timestamps = [quote.timestamp for quote in quotes]
    prices = [quote.price for quote in quotes]
    return Updates(symbol, timestamps, prices, by_second(timestamps, prices, ascending=ascending))


def _filter(
    quotes: Iterable[Quote], acceptance: Acceptance, rejected: defaultdict[str, int]
) -> Sequence[Quote]:
    good: list[Quote] = []
    for quote in quotes:
        reason = acceptance.reason_against(quote.symbol, quote.price, quote.timestamp)
        if reason is None:
            good.append(quote)
        else:
            rejected[reason] += 1
    return good
