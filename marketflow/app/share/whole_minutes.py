"""Bars of whole minutes that were asked for, kept so that an hour is 60 bars to merge, not 3600."""

from __future__ import annotations

from collections.abc import Callable

from marketflow.domain.bars import Bar
from marketflow.domain.periods import MINUTE, Span, floor_to
from marketflow.domain.prices import Pair


class WholeMinutes:
    """A cache. A minute is forgotten when one of its seconds changes."""

    def __init__(self, merge: Callable[[Pair, Span], Bar | None]) -> None:
        """`merge` makes the bar of a span, None if it has no updates."""
        self._merge = merge
        self._minutes: dict[Pair, dict[int, Bar]] = {}

    def of(self, pair: Pair, span: Span) -> list[tuple[int, Bar]]:
        """The start (ms) and the bar of each minute that has updates. The span is of whole minutes."""
        minutes = self._minutes.setdefault(pair, {})
        found: list[tuple[int, Bar]] = []
        for minute in range(span.start, span.end, MINUTE):
            bar = minutes.get(minute) or self._merge(pair, Span(minute, minute + MINUTE))
            if bar is not None:
                minutes[minute] = bar
                found.append((minute, bar))
        return found

    def changed(self, pair: Pair, second: int) -> None:
        """The bar of that second has changed."""
        if minutes := self._minutes.get(pair):
            minutes.pop(floor_to(second, MINUTE), None)

    def forget_before(self, horizon: int) -> None:
        """Forget minutes that start before `horizon` (ms)."""
        for minutes in self._minutes.values():
            for minute in [minute for minute in minutes if minute < horizon]:
                del minutes[minute]
