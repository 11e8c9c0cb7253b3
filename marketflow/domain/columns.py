"""Updates of one exchange and symbol as columns, and what they have traded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import mul
from typing import Final, Literal, TypeGuard, TypeVar, cast

import msgspec

T = TypeVar("T")

Side = Literal["buy", "sell"]
"""Which side the taker of a trade was on."""

MOST_VOLUME: Final = 1e18
MOST_QUOTE: Final = 1e280
"""A price times a volume is not greater. So sums of any number of them stay finite."""


_ROUNDING: Final = 1e-12
"""A smaller part of a volume than this is rounding: sums of the same volumes may differ by as much."""


def counts(volume: object, price: float) -> TypeGuard[float]:
    """Whether a volume from a source counts. The update counts in any case."""
    if isinstance(volume, bool) or not isinstance(volume, float | int):
        return False
    return 0 <= volume <= MOST_VOLUME and price * volume <= MOST_QUOTE  # both false for NaN


def side_of(told: object) -> Side | None:
    """The side that a source names; None if it is none."""
    return "buy" if told == "buy" else "sell" if told == "sell" else None


class Traded(msgspec.Struct, frozen=True, gc=False):
    """What the updates of a span have traded, as far as their sources told it.

    Two halves merged equal the whole. Sums are plain sums of floats.
    """

    updates: int
    """How many updates told a volume: at least one."""
    sideless: float
    """The volume of those that named no side. Volumes are in the base currency."""
    quote: float
    """The sum of price times volume."""
    buy: float | None = None
    """The volume of updates whose taker bought; None if no update named its side."""
    sell: float | None = None
    """The same for those whose taker sold."""

    @classmethod
    def of(cls, updates: int, volume: float, quote: float, buy: float | None, sell: float | None) -> Traded:
        """From the volume of all updates, and of those that named a side.

        The sums may come from a store that has rounded them differently. So a rest of less than 1e-12 of the
        volume counts as none.
        """
        sided = (buy or 0.0) + (sell or 0.0)
        sideless = volume - sided
        return cls(updates, sideless if sideless > _ROUNDING * volume else 0.0, quote, buy, sell)

    @property
    def volume(self) -> float:
        """The volume of all."""
        return (self.buy or 0.0) + (self.sell or 0.0) + self.sideless

    def merge(self, other: Traded) -> Traded:
        """What both together have traded."""
        return Traded(
            self.updates + other.updates,
            self.sideless + other.sideless,
            self.quote + other.quote,
            _sum(self.buy, other.buy),
            _sum(self.sell, other.sell),
        )

    def vwap(self, lowest: float, highest: float) -> float | None:
        """The average price weighted by volume, within these bounds; None without volume."""
        volume = self.volume
        return min(max(self.quote / volume, lowest), highest) if volume else None


def _sum(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


class Columns(msgspec.Struct, frozen=True, gc=False):
    """Updates in the order of receipt. Columns that are there have one value for each update."""

    timestamps: Sequence[int]
    """The exchange's own time, Unix ms."""
    prices: Sequence[float]
    volumes: Sequence[float | None] | None = None
    """In the base currency; None where the source did not tell it, or told one that does not count."""
    sides: Sequence[Side | None] | None = None
    """Only where there is a volume."""
    ids: Sequence[str | None] | None = None
    """The exchange's own ids of the trades."""

    def __len__(self) -> int:
        """How many updates."""
        return len(self.timestamps)

    def slice(self, part: slice) -> Columns:
        """Some of the updates that follow each other."""
        return Columns(
            self.timestamps[part],
            self.prices[part],
            None if self.volumes is None else self.volumes[part],
            None if self.sides is None else self.sides[part],
            None if self.ids is None else self.ids[part],
        )

    def take(self, places: Sequence[int]) -> Columns:
        """The updates at these places, in their order."""
        return Columns(
            [self.timestamps[place] for place in places],
            [self.prices[place] for place in places],
            _taken(self.volumes, places),
            _taken(self.sides, places),
            _taken(self.ids, places),
        )

    def append(self, other: Columns) -> Columns:
        """These updates, and then the others."""
        own, others = len(self), len(other)
        return Columns(
            [*self.timestamps, *other.timestamps],
            [*self.prices, *other.prices],
            _joined(self.volumes, own, other.volumes, others),
            _joined(self.sides, own, other.sides, others),
            _joined(self.ids, own, other.ids, others),
        )

    def rows(self) -> Iterator[tuple[int, float, float | None, Side | None]]:
        """Timestamp, price, volume and side of each update."""
        none = [None] * len(self)
        return zip(self.timestamps, self.prices, self.volumes or none, self.sides or none, strict=True)

    @property
    def traded(self) -> Traded | None:
        """What they have traded; None if no update told a volume."""
        if not self.volumes:
            return None
        try:
            # Usually all updates told one.
            return _traded(cast("Sequence[float]", self.volumes), self.prices, self.sides)
        except TypeError:
            told = [place for place, volume in enumerate(self.volumes) if volume is not None]
            return self.take(told).traded if told else None


def _traded(volumes: Sequence[float], prices: Sequence[float], sides: Sequence[Side | None] | None) -> Traded:
    """What updates have traded that all told a volume.

    Raises:
        TypeError: one of them did not.
    """
    quote = sum(map(mul, volumes, prices))
    if sides is None or not any(sides):
        return Traded(len(volumes), sum(volumes), quote)
    bought: list[float] = []
    sold: list[float] = []
    others: list[float] = []
    for volume, side in zip(volumes, sides, strict=True):
        (bought if side == "buy" else sold if side == "sell" else others).append(volume)
    sideless = sum(others, 0.0)
    return Traded(len(volumes), sideless, quote, sum(bought, 0.0), sum(sold, 0.0))


def _taken(column: Sequence[T] | None, places: Sequence[int]) -> Sequence[T] | None:
    return None if column is None else [column[place] for place in places]


def _joined(
    one: Sequence[T | None] | None, own: int, other: Sequence[T | None] | None, others: int
) -> Sequence[T | None] | None:
    if one is None and other is None:
        return None
    return [*([None] * own if one is None else one), *([None] * others if other is None else other)]
