"""Rows that have more updates than the bars: Redis has lost bars of earlier boots.

Such a row is adopted. From then on it stands for all that other boots have received of its interval, and only
bars of our own are added to it. So a late update is added to the row, and bars that come back, from a replica
or an older file, are not counted twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs

from marketflow.app.ports import FieldBars
from marketflow.domain.bars import Bar
from marketflow.domain.periods import Span
from marketflow.domain.prices import Pair

BootBar = tuple[str, Bar]
"""A bar with the boot that it is of."""


@attrs.frozen
class AdoptedRow:
    """The row of an interval, which stands for the updates of other boots, and perhaps for some of ours."""

    bar: Bar
    before: int
    """It stands for updates of ours before this sequence."""


class AdoptedRows:
    """The adopted rows of the last hour, by interval (its end) and pair."""

    def __init__(self, boot: str) -> None:
        """`boot` is ours."""
        self._boot = boot
        self._rows: dict[tuple[int, Pair], AdoptedRow] = {}
        self.reach = 0
        """Before this time (ms) rows answer, since Redis has lost bars."""

    def adopt(self, pair: Pair, end: int, bar: Bar, before: int) -> None:
        """Take over the row of the interval that ends at `end` (ms).

        It stands for updates of this boot before that sequence, too.
        """
        self._rows[end, pair] = AdoptedRow(bar, before)
        self.reach = max(self.reach, end)

    def has(self, pair: Pair, end: int) -> bool:
        """Whether the row of that interval was adopted."""
        return bool(self._rows) and (end, pair) in self._rows

    def starts(self, pair: Pair, span: Span, interval: int) -> list[int]:
        """The starts (ms) of intervals within the span whose rows were adopted."""
        starts = range(span.start, span.end, interval) if self._rows else ()
        return [start for start in starts if (start + interval, pair) in self._rows]

    def completed(self, pair: Pair, end: int, bars: Iterable[BootBar]) -> list[Bar]:
        """All that is known of an interval, given its bars: its adopted row, and the bars that this lacks."""
        row = self._rows.get((end, pair))
        if row is None:
            return [bar for _, bar in bars]
        return [row.bar, *(bar for boot, bar in bars if self._is_later(boot, bar, row.before))]

    def count(self, pair: Pair, end: int, fields: FieldBars, before: int) -> int:
        """How many updates an adopted row and the bars of its interval have.

        Without those of this boot from the sequence `before` on.
        """
        bars = [(boot, bar) for (_, boot), bar in fields.items() if not self._is_later(boot, bar, before)]
        return sum(bar.count for bar in self.completed(pair, end, bars))

    def _is_later(self, boot: str, bar: Bar, sequence: int) -> bool:
        """Whether the bar is of this boot, and of no updates before that sequence.

        Sequences of other boots tell nothing: a clock may have been wrong.
        """
        return boot == self._boot and bar.open_sequence >= sequence

    def forget(self, is_over: Callable[[Pair, int], bool]) -> None:
        """Forget rows of intervals (pair, end in ms) to which nothing can be added any more."""
        for end, pair in [key for key in self._rows if is_over(key[1], key[0])]:
            del self._rows[end, pair]

    def __len__(self) -> int:
        return len(self._rows)
