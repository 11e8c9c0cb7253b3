"""Rows that have more updates than the bars: Redis has lost bars of earlier boots.

Such a row is adopted. From then on it stands for all that is known of its interval, and each update of this
boot is added to it as it comes in. So late updates are added to the row, and bars of other boots that come
back, from a replica or an older file, are not counted twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from marketflow.domain.bars import Bar
from marketflow.domain.periods import Span, floor_to
from marketflow.domain.prices import Pair

Key = tuple[int, Pair]
"""An interval (its end, ms) of a pair."""


class AdoptedRows:
    """The adopted rows of the last hour."""

    def __init__(self, interval: int) -> None:
        """`interval` is the length (ms) of an aggregate."""
        self._interval = interval
        self._rows: dict[Key, Bar] = {}
        self._arrived: dict[Key, Bar] | None = None
        """What this boot has accepted since rows began to be read; None if they are not being read."""
        self.reach = 0
        """Before this time (ms) rows answer, since Redis has lost bars."""

    # ---- what comes in ----

    @property
    def interested(self) -> bool:
        """Whether updates that this boot accepts have to be entered here."""
        return bool(self._rows) or self._arrived is not None

    def enter(self, pair: Pair, second: int, bar: Bar) -> None:
        """Add updates that this boot accepted just now, all of one second (its start in ms)."""
        key = (floor_to(second, self._interval) + self._interval, pair)
        if key in self._rows:
            self._rows[key] = self._rows[key].merge(bar)
        if self._arrived is not None:
            arrived = self._arrived.get(key)
            self._arrived[key] = bar if arrived is None else arrived.merge(bar)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Rows are read and compared inside: note what comes in, since these rows lack it."""
        self._arrived = {}
        try:
            yield
        finally:
            self._arrived = None

    # ---- rows ----

    def arrived(self, pair: Pair, end: int) -> Bar | None:
        """What this boot has accepted of an interval since rows began to be read."""
        return (self._arrived or {}).get((end, pair))

    def adopt(self, pair: Pair, end: int, row: Bar, *, lacks: Bar | None) -> None:
        """Take over the row of the interval that ends at `end` (ms), and add the updates that it lacks."""
        self._rows[end, pair] = row if lacks is None else row.merge(lacks)
        self.reach = max(self.reach, end)

    def of(self, pair: Pair, end: int) -> Bar | None:
        """The adopted row of that interval; None if its bars are all that is known of it."""
        return self._rows.get((end, pair)) if self._rows else None

    def within(self, pair: Pair, span: Span) -> dict[int, Bar]:
        """The adopted rows of intervals within the span, by their start (ms)."""
        # They are few. The intervals of a span may be many: somebody's bar may be years ahead.
        starts = {end - self._interval: row for (end, of), row in self._rows.items() if of == pair}
        return {start: row for start, row in starts.items() if span.start <= start < span.end}

    def forget(self, is_over: Callable[[Pair, int], bool]) -> None:
        """Forget rows of intervals (pair, end in ms) to which nothing can be added any more."""
        for end, pair in [key for key in self._rows if is_over(key[1], key[0])]:
            del self._rows[end, pair]

    def __len__(self) -> int:
        return len(self._rows)
