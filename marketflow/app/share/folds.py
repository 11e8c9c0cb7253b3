"""What is left of intervals without a row once their one-second bars are too old: one bar for each boot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from marketflow.domain.bars import Bar
from marketflow.domain.prices import Pair


class Folds:
    """Bars of whole intervals by interval, pair and boot.

    A fold holds all updates of its boot in that interval. One-second bars of the same boot and interval, as
    Redis may still have them, must not be added to it.
    """

    def __init__(self) -> None:
        self._bars: dict[tuple[int, Pair], dict[str, Bar]] = {}

    def add(self, pair: Pair, end: int, boot: str, bar: Bar) -> None:
        """Merge a bar into the fold of the interval that ends at `end` (ms)."""
        boots = self._bars.setdefault((end, pair), {})
        known = boots.get(boot)
        boots[boot] = bar if known is None else known.merge(bar)

    def of(self, pair: Pair, end: int) -> Mapping[str, Bar]:
        """The folds of an interval by boot."""
        return self._bars.get((end, pair), {}) if self._bars else {}

    def drop(self, pair: Pair, end: int) -> None:
        """Forget the folds of an interval: its row was written."""
        self._bars.pop((end, pair), None)

    def __iter__(self) -> Iterator[tuple[Pair, int, str, Bar]]:
        """Pair, end of the interval, boot and bar of each."""
        for (end, pair), boots in self._bars.items():
            for boot, bar in boots.items():
                yield pair, end, boot, bar
