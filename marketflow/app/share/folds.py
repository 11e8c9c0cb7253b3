"""Unwritten intervals that are older than the bars are kept: one bar for each boot is left of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from marketflow.domain.bars import Bar
from marketflow.domain.prices import Pair


class Folds:
    """Bars of whole intervals by interval, pair and boot.

    Of a boot that is in here, the one-second bars of that interval no longer count, wherever they turn up.
    """

    def __init__(self) -> None:
        self._bars: dict[tuple[int, Pair], dict[str, Bar]] = {}

    def add(self, pair: Pair, end: int, boot: str, bar: Bar) -> None:
        """Merge a bar into that of the interval that ends at `end` (ms)."""
        boots = self._bars.setdefault((end, pair), {})
        known = boots.get(boot)
        boots[boot] = bar if known is None else known.merge(bar)

    def of(self, pair: Pair, end: int) -> Mapping[str, Bar]:
        """By boot, what is folded of an interval."""
        return self._bars.get((end, pair), {}) if self._bars else {}

    def drop(self, pair: Pair, end: int) -> None:
        """The interval's row was written."""
        self._bars.pop((end, pair), None)

    def __iter__(self) -> Iterator[tuple[Pair, int, str, Bar]]:
        """Pair, end of the interval, boot and bar of each."""
        for (end, pair), boots in self._bars.items():
            for boot, bar in boots.items():
                yield pair, end, boot, bar
