"""The bar with the newest update of each pair. It is known for longer than the bars are kept."""

from __future__ import annotations

from marketflow.domain.bars import Bar
from marketflow.domain.prices import Pair


class NewestBars:
    """Of all bars that have come in, of every boot."""

    def __init__(self) -> None:
        self._bars: dict[Pair, Bar] = {}
        self.times: dict[str, int] = {}
        """By exchange the greatest timestamp (ms)."""

    def see(self, pair: Pair, bar: Bar) -> None:
        """A bar has come in, or has grown."""
        known = self._bars.get(pair)
        if known is None or bar.closes_after(known):
            self._bars[pair] = bar
            if bar.close_time > self.times.get(pair[0], 0):
                self.times[pair[0]] = bar.close_time

    def of(self, pair: Pair) -> Bar | None:
        """Its close is the latest price. None if the pair has had no update."""
        return self._bars.get(pair)
