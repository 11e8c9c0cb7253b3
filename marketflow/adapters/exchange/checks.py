"""The checks of updates, the same for every kind of source. No I/O."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final, Protocol, TypeGuard, TypeVar, cast

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


_SIDES: Final = frozenset({"buy", "sell", None})
AnyQuote = TypeVar("AnyQuote", bound=Quote)


class Quotes(msgspec.Struct, gc=False):
    """The well-formed messages about a symbol, as columns. The fields are those of `Quote`."""

    symbol: str
    timestamps: Sequence[int]
    prices: Sequence[float]
    volumes: Sequence[object] | None = None
    """None: the source tells no volumes and no sides."""
    sides: Sequence[object] = ()
    ids: Sequence[int | str] | None = None
    """The source's own ids of the trades; None if it has none. The checks take texts only."""

    def take(self, places: Sequence[int]) -> Quotes:
        """Those at these places, in their order."""
        volumes, sides, ids = self.volumes, self.sides, self.ids
        return Quotes(
            self.symbol,
            [self.timestamps[place] for place in places],
            [self.prices[place] for place in places],
            None if volumes is None else [volumes[place] for place in places],
            () if volumes is None else [sides[place] for place in places],
            None if ids is None else [ids[place] for place in places],
        )

    @property
    def columns(self) -> Columns:
        """Those of them that need no check."""
        return Columns(self.timestamps, self.prices, ids=cast("Sequence[str] | None", self.ids))


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
    ) -> Decoded:
        """The content of a payload.

        Args:
            quotes: the well-formed messages, in the order of their receipt.
            rejected: the number of other messages, by reason.
            received_at: when they were received, Unix ms.
            told: whether some of them may tell a volume.
        """
        timestamps = [quote.timestamp for quote in quotes]
        # If all timestamps ascend, as they usually do, those of each symbol ascend too.
        ascending = timestamps == sorted(timestamps)
        groups = [_quotes(symbol, group, told=told) for symbol, group in by_symbol(quotes).items()]
        return self.grouped(groups, rejected, received_at, ascending=ascending)

    def grouped(
        self,
        groups: Sequence[Quotes],
        rejected: Mapping[str, int],
        received_at: int,
        *,
        ascending: bool,
    ) -> Decoded:
        """The same for messages that are columns by symbol already; `ascending`: so are their timestamps."""
        acceptance = Acceptance.at(
            received_at, symbols=self.symbols, interval=self.interval, lateness=self.lateness
        )
        reasons: defaultdict[str, int] = defaultdict(int, rejected)
        accepted: list[Updates] = []
        ignored_volumes = 0
        for group in groups:
            updates, ignored = _accept(group, acceptance, reasons, ascending=ascending)
            if updates is not None:
                accepted.append(updates)
                ignored_volumes += ignored
        return Decoded(
            received=sum(rejected.values()) + sum([len(group.prices) for group in groups]),
            updates=accepted,
            rejected=dict(reasons),
            ignored_volumes=ignored_volumes,
        )


def by_symbol(quotes: Iterable[AnyQuote]) -> Mapping[str, Sequence[AnyQuote]]:
    """The quotes of each symbol, in their order."""
    groups: defaultdict[str, list[AnyQuote]] = defaultdict(list)
    for quote in quotes:
        groups[quote.symbol].append(quote)
    return groups


def _quotes(symbol: str, group: Sequence[Quote], *, told: bool) -> Quotes:
    timestamps, prices = [quote.timestamp for quote in group], [quote.price for quote in group]
    if not told:
        return Quotes(symbol, timestamps, prices)
    volumes, sides = [quote.volume for quote in group], [quote.side for quote in group]
    return Quotes(symbol, timestamps, prices, volumes, sides)


def _accept(
    group: Quotes, acceptance: Acceptance, rejected: defaultdict[str, int], *, ascending: bool
) -> tuple[Updates | None, int]:
    """The acceptable quotes, and how many of their volumes do not count.

    The others are counted in `rejected`.
    """
    if group.symbol not in acceptance.symbols:
        rejected[SYMBOL] += len(group.prices)
        return None, 0
    updates, ignored = _updates(group, ascending=ascending)
    # Usually all updates are good. The bars show this without a check of each update.
    for bar in updates.bars.values():
        if not acceptance.takes(bar):
            break
    else:
        return updates, ignored
    good = _good(group, acceptance, rejected)
    return _updates(group.take(good), ascending=ascending) if good else (None, 0)


def _updates(group: Quotes, *, ascending: bool) -> tuple[Updates, int]:
    columns, ignored = group.columns, 0
    if group.volumes is not None:
        columns, ignored = _with_volumes(columns, group.volumes, group.sides)
    return Updates(group.symbol, columns, in_seconds(columns, ascending=ascending)), ignored


def _with_volumes(columns: Columns, told: Sequence[object], sides: Sequence[object]) -> tuple[Columns, int]:
    """The columns with the volumes that count, and their sides; and how many volumes do not count."""
    if _all_count(told, columns.prices) and _all_known(sides):
        # Usually all are good. This shows it without a check of each.
        return Columns(
            columns.timestamps, columns.prices, told, sides if any(sides) else None, columns.ids
        ), 0
    volumes = [
        float(volume) if counts(volume, price) else None
        for volume, price in zip(told, columns.prices, strict=True)
    ]
    ignored = volumes.count(None) - sum([volume is msgspec.UNSET for volume in told])
    if volumes.count(None) == len(volumes):
        return columns, ignored
    known = [None if volume is None else side_of(side) for volume, side in zip(volumes, sides, strict=True)]
    named = known if any(known) else None
    return Columns(columns.timestamps, columns.prices, volumes, named, columns.ids), ignored


def _all_count(told: Sequence[object], prices: Sequence[float]) -> TypeGuard[Sequence[float]]:
    """Whether all volumes are floats, and count with any of these prices."""
    if set(map(type, told)) != {float}:
        return False
    volumes = cast("Sequence[float]", told)
    most = max(volumes)
    return min(volumes) >= 0 and most <= MOST_VOLUME and most * max(prices) <= MOST_QUOTE


def _all_known(sides: Sequence[object]) -> TypeGuard[Sequence[Side | None]]:
    """Whether all are sides, or are missing."""
    try:
        return {*sides} <= _SIDES
    except TypeError:
        return False  # a JSON array or object


def _good(group: Quotes, acceptance: Acceptance, rejected: defaultdict[str, int]) -> Sequence[int]:
    """The places of the acceptable quotes."""
    good: list[int] = []
    for place, (price, timestamp) in enumerate(zip(group.prices, group.timestamps, strict=True)):
        reason = acceptance.reason_against(group.symbol, price, timestamp)
        if reason is None:
            good.append(place)
        else:
            rejected[reason] += 1
    return good
