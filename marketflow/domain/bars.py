"""The bar: what is kept of the updates of a span. Two halves merged equal the whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Final

import attrs

from marketflow.domain.periods import SECOND

BAR_WIDTH: Final = SECOND
"""The finest span that bars are kept for, in ms."""


@attrs.frozen
class Bar:
    """The mergeable summary of the updates of a span.

    `open` is the price of the update with the least (time, sequence), `close` of that with the greatest:
    of equal timestamps the later received is the later. This makes `merge` associative and commutative,
    but for the rounding of the average. The average stands in for the sum, which overflows a float
    where no price does.
    """

    count: int
    average: float
    min: float
    max: float
    open: float
    open_time: int
    open_sequence: int
    close: float
    close_time: int
    close_sequence: int

    @classmethod
    def of(cls, timestamps: Sequence[int], prices: Sequence[float], first_sequence: int = 0) -> Bar:
        """The bar of updates given as columns in the order of receipt; there must be one at least."""
        last = len(timestamps) - 1
        first_time = min(timestamps)
        last_time = max(timestamps)
        opened = 0 if timestamps[0] == first_time else timestamps.index(first_time)
        closed = last
        while timestamps[closed] != last_time:
            closed -= 1
        return cls(
            last + 1,
            _average(prices),
            min(prices),
            max(prices),
            prices[opened],
            first_time,
            first_sequence + opened,
            prices[closed],
            last_time,
            first_sequence + closed,
        )

    def merge(self, other: Bar) -> Bar:
        """The bar of both together."""
        return _joined((self, other))

    def shifted(self, sequence: int) -> Bar:
        """The same bar with its sequences counted from `sequence`."""
        return Bar(
            self.count,
            self.average,
            self.min,
            self.max,
            self.open,
            self.open_time,
            self.open_sequence + sequence,
            self.close,
            self.close_time,
            self.close_sequence + sequence,
        )


def _opening(bar: Bar) -> tuple[int, int]:
    return bar.open_time, bar.open_sequence


def _closing(bar: Bar) -> tuple[int, int]:
    return bar.close_time, bar.close_sequence


def _average(prices: Sequence[float]) -> float:
    total = sum(prices)
    count = len(prices)
    average = total / count if isfinite(total) else sum(price / count for price in prices)
    return min(max(average, min(prices)), max(prices))


def merged(bars: Iterable[Bar]) -> Bar | None:
    """All the bars as one; None of none. Quicker than merging them one by one."""
    parts = list(bars)
    return _joined(parts) if len(parts) > 1 else next(iter(parts), None)


def _joined(parts: Sequence[Bar]) -> Bar:
    count = sum(bar.count for bar in parts)
    lowest = min(bar.min for bar in parts)
    highest = max(bar.max for bar in parts)
    # Of positive terms only, so that nothing cancels: each merge costs a few units in the last place.
    average = sum(bar.average * (bar.count / count) for bar in parts)
    opens = min(parts, key=_opening)
    closes = max(parts, key=_closing)
    return Bar(
        count,
        min(max(average, lowest), highest),
        lowest,
        highest,
        opens.open,
        opens.open_time,
        opens.open_sequence,
        closes.close,
        closes.close_time,
        closes.close_sequence,
    )


def by_second(timestamps: Sequence[int], prices: Sequence[float]) -> dict[int, Bar]:
    """One-second bars of updates given as columns in the order of receipt, by the second's start (ms).

    Sequences count from 0, the first of the columns.
    """
    first = min(timestamps) // BAR_WIDTH
    if first == max(timestamps) // BAR_WIDTH:
        return {first * BAR_WIDTH: Bar.of(timestamps, prices)}
    places: dict[int, list[int]] = {}
    for place, timestamp in enumerate(timestamps):
        places.setdefault(timestamp - timestamp % BAR_WIDTH, []).append(place)
    bars: dict[int, Bar] = {}
    for second, within in places.items():
        bar = Bar.of([timestamps[place] for place in within], [prices[place] for place in within])
        bars[second] = attrs.evolve(
            bar,
            open_sequence=within[bar.open_sequence],
            close_sequence=within[bar.close_sequence],
        )
    return bars
