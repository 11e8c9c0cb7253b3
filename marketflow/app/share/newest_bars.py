"""The bar with the newest update of each pair. It is known for longer than the bars are kept."""

from __future__ import annotations

from marketflow.domain.bars import Bar
from marketflow.domain.columns import Columns
from marketflow.domain.prices import Pair


class NewestBars:
    """Of all bars that have come in, of every boot."""

    def __init__(self) -> None:
        self._bars: dict[Pair, Bar] = {}
        self._volumes: dict[Pair, tuple[int, float]] = {}
        """The sequence of an update of this boot, and its volume."""
        self.times: dict[str, int] = {}
        """By exchange the greatest timestamp (ms)."""

    def see(self, pair: Pair, bar: Bar) -> None:
        """A bar has come in, or has grown."""
        known = self._bars.get(pair)
        if known is None or bar.closes_after(known):
            self._bars[pair] = bar
            if bar.close_time > self.times.get(pair[0], 0):
                self.times[pair[0]] = bar.close_time

    def see_volumes(self, pair: Pair, columns: Columns, closes: int, first: int) -> None:
        """Updates have come in, with sequences from `first` on. That at the place `closes` is the last by time."""
        if columns.volumes is not None and (volume := columns.volumes[closes]) is not None:
            self._volumes[pair] = first + closes, volume

    def volume_of(self, pair: Pair) -> float | None:
        """The volume of the newest update, if it was told, and the update was received by this boot."""
        bar, (sequence, volume) = self._bars.get(pair), self._volumes.get(pair, (-1, None))
        return volume if bar is not None and bar.close_sequence == sequence else None

    def of(self, pair: Pair) -> Bar | None:
        """Its close is the latest price. None if the pair has had no update."""
        return self._bars.get(pair)
