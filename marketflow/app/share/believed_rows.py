"""Rows compared with what bars say of themselves: foreign bars may have hidden that Redis lacks some.

To look at each of millions of bars takes far longer than to compare rows with their counts. So a row is kept
here until its bars have been looked at. If some are foreign, and it has more updates than the others, it is
adopted in the same step. Then it is as if all bars had been looked at before: no update of this boot is in a
minute that nobody has looked at, since to add one is to look at it.
"""

from __future__ import annotations

from collections.abc import Mapping

from marketflow.app.share.adopted_rows import AdoptedRows
from marketflow.app.share.second_bars import SecondBars
from marketflow.domain.bars import Bar
from marketflow.domain.periods import Span
from marketflow.domain.prices import Pair


class BelievedRows:
    """The rows whose bars have not all been looked at."""

    def __init__(self, bars: SecondBars, adopted: AdoptedRows) -> None:
        self._bars = bars
        self._adopted = adopted
        self._rows: dict[Pair, Mapping[int, Bar]] = {}
        """By the start (ms) of their interval."""
        bars.foreign.heard = self._doubt

    def believe(self, pair: Pair, rows: Mapping[int, Bar]) -> None:
        """These rows, by the start (ms) of their interval, do not have more updates than the bars say."""
        self._rows[pair] = rows

    def looked_at(self, pair: Pair) -> None:
        """All bars of the pair have been looked at."""
        self._rows.pop(pair, None)

    def _doubt(self, pair: Pair, minute: int) -> None:
        """Bars of that minute (ms) have turned out to be foreign."""
        row = self._rows.get(pair, {}).get(minute)
        if row is not None:
            end = minute + self._bars.interval
            bar = self._bars.bar(pair, Span(minute, end))
            if bar is None or bar.count < row.count:
                self._adopted.adopt(pair, end, row, lacks=None)
