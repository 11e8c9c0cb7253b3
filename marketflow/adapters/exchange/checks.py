"""The checks of updates, the same for every kind of source. No I/O."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Protocol

import attrs
import msgspec

from marketflow.app.ports import Decoded, Updates
from marketflow.domain.bars import in_seconds
from marketflow.domain.columns import Columns, counts, side_of
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
    volume: object
    """As the source has told it; msgspec.UNSET if it has not."""
    side: object
    """"buy" or "sell", if the source has told it."""


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

    def decoded(
        self, quotes: Sequence[Quote], rejected: Mapping[str, int], received_at: int, *, told: bool = False
    ) -> Decoded:
        """The content of a payload.

        Args:
            quotes: the well-formed messages, in the order of their receipt.
            rejected: the number of other messages, by reason.
            received_at: when they were received, Unix ms.
            told: whether some of them may tell a volume.
        """
        acceptance = Acceptance.at(
            received_at, symbols=self.symbols, interval=self.interval, lateness=self.lateness
        )
        reasons: defaultdict[str, int] = defaultdict(int, rejected)
        updates = _accept(quotes, acceptance, reasons, told=told)
        return Decoded(
            received=sum(rejected.values()) + len(quotes),
            updates=[each for each, _ in updates],
            rejected=dict(reasons),
            ignored_volumes=sum([ignored for _, ignored in updates]) if told else 0,
        )


def _accept(
    quotes: Sequence[Quote], acceptance: Acceptance, rejected: defaultdict[str, int], *, told: bool
) -> Sequence[tuple[Updates, int]]:
    """The acceptable quotes by symbol, and how many of their volumes do not count.

    The others are counted in `rejected`.
    """
    by_symbol: defaultdict[str, list[Quote]] = defaultdict(list)
    for quote in quotes:
        by_symbol[quote.symbol].append(quote)
    timestamps = [quote.timestamp for quote in quotes]
    # If all timestamps ascend, as they usually do, those of each symbol ascend too.
    ascending = timestamps == sorted(timestamps)
    accepted: list[tuple[Updates, int]] = []
    for symbol, group in by_symbol.items():
        if symbol not in acceptance.symbols:
            rejected[SYMBOL] += len(group)
            continue
        updates, ignored = _updates(symbol, group, ascending=ascending, told=told)
        # Usually all updates are good. The bars show this without a check of each update.
        for bar in updates.bars.values():
            if not acceptance.takes(bar):
                break
        else:
            accepted.append((updates, ignored))
            continue
        if good := _filter(group, acceptance, rejected):
            accepted.append(_updates(symbol, good, ascending=ascending, told=told))
    return accepted


def _updates(symbol: str, quotes: Sequence[Quote], *, ascending: bool, told: bool) -> tuple[Updates, int]:
    columns = Columns([quote.timestamp for quote in quotes], [quote.price for quote in quotes])
    ignored = 0
    if told:
        columns, ignored = _with_volumes(columns, quotes)
    return Updates(symbol, columns, in_seconds(columns, ascending=ascending)), ignored


def _with_volumes(columns: Columns, quotes: Sequence[Quote]) -> tuple[Columns, int]:
    """The columns with the volumes that count, and their sides; and how many volumes do not count."""
    volumes = [float(quote.volume) if counts(quote.volume, quote.price) else None for quote in quotes]
    missing = volumes.count(None)
    untold = sum([quote.volume is msgspec.UNSET for quote in quotes]) if missing else 0
    if missing == len(volumes):
        return columns, missing - untold
    sides = [
        None if volume is None else side_of(quote.side) for quote, volume in zip(quotes, volumes, strict=True)
    ]
    told = sides if any(sides) else None
    return Columns(columns.timestamps, columns.prices, volumes, told), missing - untold


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
