"""The rows that are to be written to PostgreSQL, made of bars and folds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Final

import attrs

from marketflow.app.ports import Aggregate, Field, FieldBars
from marketflow.app.share.adopted_rows import AdoptedRows
from marketflow.app.share.believed_rows import BelievedRows
from marketflow.app.share.second_bars import SecondBars, fuller
from marketflow.domain.bars import Bar, merged
from marketflow.domain.periods import Span, floor_to
from marketflow.domain.prices import Pair

_FOREVER: Final = 2**62
"""A time (ms) after all others."""


@attrs.frozen
class Due:
    """An interval of one exchange and symbol whose row is not up to date."""

    end: int
    pair: Pair
    version: int
    """Which version of it was taken to be written (see `Outbox`)."""


class Rows:
    """Each interval that has updates is a row. Which have to be written is in an outbox of each pair.

    One task writes rows, in turns. What it has not written in one turn is put back at the start of the next.
    """

    def __init__(self, bars: SecondBars) -> None:
        self._bars = bars
        self._unwritten = bars.unwritten
        self.adopted = AdoptedRows(bars.interval)
        """Rows that have updates of which there are no bars."""
        self.believed = BelievedRows(bars, self.adopted)
        """Rows that were compared with bars that have not been looked at."""

    # ---- to PostgreSQL ----

    def take_due(self, before: int, *, since: float = -math.inf) -> list[Due]:
        """Begin a turn: take the rows of intervals that ended at or before `before` (ms), oldest first.

        Only those of intervals that began at `since` (ms) or later. Others go on waiting.
        """
        due: list[Due] = []
        after = since + self._bars.interval
        for pair, outbox in self._unwritten.outboxes.items():
            outbox.put_back()
            ends = [end for end in outbox.waiting if after <= end <= before]
            version = outbox.take(ends)
            due += [Due(end, pair, version) for end in ends]
        due.sort(key=attrgetter("end"))
        return due

    def is_current(self, due: Due) -> bool:
        """Whether the bars of that row have not changed since it was taken."""
        return self._unwritten.outboxes[due.pair].is_current(due.end, due.version)

    def written(self, due: Iterable[Due]) -> None:
        """Rows were written. Those whose bars have changed since they were taken stay due."""
        for row in due:
            self._unwritten.acknowledge(row.pair, row.end, row.version)

    def known(self, pair: Pair, end: int) -> None:
        """The row of the interval that ends then (ms) was found as it is to be."""
        outbox = self._unwritten.outboxes[pair]
        if end in outbox.waiting:
            outbox.forget((end,))
            self._unwritten.folds.drop(pair, end)

    def mark(self, pair: Pair, starts: Iterable[int]) -> int:
        """Have the rows of the intervals that start then (ms) written again; returns how many that are.

        Those that are to be written anyway are not counted.
        """
        outbox, interval = self._unwritten.outboxes[pair], self._bars.interval
        missing = [start + interval for start in starts if start + interval not in outbox]
        for end in missing:
            self._unwritten.mark(pair, end)
        return len(missing)

    def unwritten(self, before: int) -> int:
        """How many rows are to be written of intervals that ended at or before `before` (ms)."""
        return sum(end <= before for outbox in self._unwritten.outboxes.values() for end in outbox)

    # ---- what they are made of ----

    def aggregate(self, due: Due, stored: FieldBars) -> Aggregate | None:
        """The row of our bars and those in `stored`: of each field the bar with more updates.

        None if the interval has no updates.
        """
        whole = self._bar(due.pair, due.end, stored)
        return None if whole is None else Aggregate(due.pair[0], due.pair[1], due.end, whole)

    def _bar(self, pair: Pair, end: int, stored: FieldBars) -> Bar | None:
        folded = self._unwritten.folds.of(pair, end)
        span = Span(end - self._bars.interval, end)
        # What was read from Redis may have been folded meanwhile.
        others = {
            (second, boot): bar
            for (second, boot), bar in stored.items()
            if second in span and not self._bars.is_gone(pair, second, boot)
        }
        if others or folded:
            whole = merged([*fuller(self._bars.fields(pair, span), others).values(), *folded.values()])
        else:
            whole = self._bars.bar(pair, span)
        # Last, since to look at the bars may have shown that Redis has lost some.
        adopted = self.adopted.of(pair, end)
        return whole if adopted is None else adopted

    def unwritten_between(self, pair: Pair, span: Span) -> dict[int, Bar]:
        """By their start (ms) the bars of intervals within the span whose rows are not up to date."""
        interval = self._bars.interval
        return {
            end - interval: bar
            for end in self._unwritten.outboxes[pair]
            if span.start <= end - interval and end <= span.end
            if (bar := self._bar(pair, end, {})) is not None
        }

    def counts(self, pair: Pair, span: Span, *, own: bool) -> Counter[int]:
        """How many updates are known of intervals within the span, by their start (ms).

        With or without those of this boot. An adopted row always has them. Minutes that nobody has looked at
        count as they say.
        """
        interval = self._bars.interval
        counts: Counter[int] = Counter()
        for time, count in self._bars.totals(pair, span, own=own):
            counts[floor_to(time, interval)] += count
        for start, row in self.adopted.within(pair, span).items():
            counts[start] = row.count
        return counts

    # ---- what a stop has to save ----

    def folded(self) -> Iterator[tuple[Pair, Field, Bar]]:
        """Unwritten intervals that are older than the bars: pair, the interval's start with the boot, bar."""
        for pair, end, boot, bar in self._unwritten.folds:
            yield pair, (end - self._bars.interval, boot), bar

    def needed_bars(self, since: int) -> Iterator[tuple[Pair, Field, Bar]]:
        """The one-second bars of rows that are not up to date, and all from `since` (ms) on."""
        interval = self._bars.interval
        for pair in list(self._bars.pairs):
            spans = [Span(end - interval, min(end, since)) for end in self._unwritten.outboxes[pair]]
            for span in [*spans, Span(since, _FOREVER)]:
                if not span.empty:
                    yield from ((pair, field, bar) for field, bar in self._bars.fields(pair, span).items())
