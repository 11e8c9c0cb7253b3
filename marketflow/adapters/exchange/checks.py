"""The checks of updates, the same for every kind of source. No I/O."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Protocol, TypeGuard, cast

import attrs
import msgspec

from marketflow.app.ports import Decoded, Updates
from marketflow.domain.bars import in_seconds
from marketflow.domain.columns import MOST_QUOTE, MOST_VOLUME, Columns, counts, side_of
from marketflow.domain.prices import SYMBOL, Acceptance

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from marketflow.domain.columns import Side


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


class Identified(Quote, Protocol):
    """A quote with the source's own id of the trade."""

    id: int | str


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
        self,
        quotes: Sequence[Quote],
        rejected: Mapping[str, int],
        received_at: int,
        *,
        told: bool = False,
        identified: bool = False,
    ) -> Decoded:
        """The content of a payload.

        Args:
            quotes: the well-formed messages, in the order of their receipt.
            rejected: the number of other messages, by reason.
            received_at: when they were received, Unix ms.
            told: whether some of them may tell a volume.
            identified: whether all of them are `Identified`; their ids become a column then.
        """
        acceptance = Acceptance.at(
            received_at, symbols=self.symbols, interval=self.interval, lateness=self.lateness
        )
        reasons: defaultdict[str, int] = defaultdict(int, rejected)
        updates = _accept(quotes, acceptance, reasons, told=told, identified=identified)
        return Decoded(
            received=sum(rejected.values()) + len(quotes),
            updates=[each for each, _ in updates],
            rejected=dict(reasons),
            ignored_volumes=sum([ignored for _, ignored in updates]) if told else 0,
        )


def _accept(
    quotes: Sequence[Quote],
    acceptance: Acceptance,
    rejected: defaultdict[str, int],
    *,
    told: bool,
    identified: bool,
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
        updates, ignored = _updates(symbol, group, ascending=ascending, told=told, identified=identified)
        # Usually all updates are good. The bars show this without a check of each update.
        for bar in updates.bars.values():
            if not acceptance.takes(bar):
                break
        else:
            accepted.append((updates, ignored))
            continue
        if good := _filter(group, acceptance, rejected):
            accepted.append(_updates(symbol, good, ascending=ascending, told=told, identified=identified))
    return accepted


def _updates(
    symbol: str, quotes: Sequence[Quote], *, ascending: bool, told: bool, identified: bool
) -> tuple[Updates, int]:
    columns = Columns([quote.timestamp for quote in quotes], [quote.price for quote in quotes])
    ignored = 0
    if told:
        columns, ignored = _with_volumes(columns, quotes)
    if identified:
        ids = [str(quote.id) for quote in cast("Sequence[Identified]", quotes)]
        columns = msgspec.structs.replace(columns, ids=ids)
    return Updates(symbol, columns, in_seconds(columns, ascending=ascending)), ignored


def _with_volumes(columns: Columns, quotes: Sequence[Quote]) -> tuple[Columns, int]:
    """The columns with the volumes that count, and their sides; and how many volumes do not count."""
    told = [quote.volume for quote in quotes]
    sides = [quote.side for quote in quotes]
    if _all_count(told, columns.prices) and _all_known(sides):
        # Usually all are good. This shows it without a check of each.
        named = None if sides.count(None) == len(sides) else sides
        return Columns(columns.timestamps, columns.prices, told, named), 0
    volumes = [
        float(volume) if counts(volume, price) else None
        for volume, price in zip(told, columns.prices, strict=True)
    ]
    ignored = volumes.count(None) - sum([volume is msgspec.UNSET for volume in told])
    if volumes.count(None) == len(volumes):
        return columns, ignored
    known = [None if volume is None else side_of(side) for volume, side in zip(volumes, sides, strict=True)]
    return Columns(columns.timestamps, columns.prices, volumes, known if any(known) else None), ignored


def _all_count(told: Sequence[object], prices: Sequence[float]) -> TypeGuard[Sequence[float]]:
    """Whether all volumes are floats, and count with any of these prices."""
    if set(map(type, told)) != {float}:
        return False
    volumes = cast("Sequence[float]", told)
    most = max(volumes)
    return min(volumes) >= 0 and most <= MOST_VOLUME and most * max(prices) <= MOST_QUOTE


def _all_known(sides: Sequence[object]) -> TypeGuard[Sequence[Side | None]]:
    """Whether all are sides, or are missing. They need not be hashable."""
    return sides.count("buy") + sides.count("sell") + sides.count(None) == len(sides)


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
