"""One-second bars of the last hour, and which minutes still have to be written because of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import attrs

from marketflow.app.ports import Aggregate, Field, FieldBars
from marketflow.app.share.folds import Folds
from marketflow.app.share.unflushed import Key, Unflushed
from marketflow.domain.bars import BAR_WIDTH, Bar, merged
from marketflow.domain.periods import HOUR, MINUTE, Span, ceil_to, floor_to
from marketflow.domain.prices import Pair

BARS_KEPT: Final = HOUR
"""How long (ms) one-second bars are kept, in memory and in Redis."""

PRUNE_MARGIN: Final = MINUTE
"""How much longer (ms) they are kept in memory, for questions that are being answered."""


def fuller(first: FieldBars, second: FieldBars) -> dict[Field, Bar]:
    """Of each field the bar with more updates: the truer one, since a bar only ever grows."""
    bars = dict(first)
    for field, bar in second.items():
        known = bars.get(field)
        if known is None or bar.count > known.count:
            bars[field] = bar
    return bars


@attrs.frozen
class Due:
    """An interval of one exchange and symbol whose row is not up to date."""

    end: int
    pair: Pair
    version: int
    """Changes with every change of its bars."""


class SecondBars:
    """Bars by exchange, symbol, second and boot: those of this boot, and those read of others.

    A bar only ever grows: of two bars of one second and boot the one with more updates is the truer.
    """

    def __init__(self, *, boot: str, interval: int) -> None:
        self.boot = boot
        self.interval = interval
        self._bars: dict[Pair, dict[int, dict[str, Bar]]] = {}
        self.outbox = Unflushed()
        self._unwritten: dict[int, dict[Pair, int]] = {}
        self._folds = Folds()
        self._newest: dict[Pair, Bar] = {}
        self.newest_times: dict[str, int] = {}
        """By exchange the greatest timestamp (ms) of all bars that have come in."""
        self._minutes: dict[Pair, dict[int, Bar]] = {}
        """Whole minutes that were asked for, merged; forgotten when one of their seconds changes."""
        self.others_until = 0
        """From when on (ms) there is no bar of another boot."""
        self._version = 0
        self._pruned_to = 0
        self._looked_to = 0
        """The horizon of the last call of `forget`: behind `pruned_to` after a step back of the clock."""
        self._forgotten: list[Key] = []

    # ---- in ----

    def add(self, pair: Pair, second: int, bar: Bar, sequence: int = 0) -> None:
        """Merge a bar of updates accepted by this boot just now, its sequences counted from `sequence`."""
        boots = self._boots(pair, second)
        known = boots.get(self.boot)
        whole = bar.shifted(sequence) if known is None else known.followed_by(bar, sequence)
        boots[self.boot] = whole
        self._changed(pair, second, whole)
        self.outbox.add((pair, (second, self.boot)))

    def adopt(self, pair: Pair, bars: FieldBars) -> None:
        """Take over bars that another boot left behind; those known already stay unless they have grown."""
        for (second, boot), bar in bars.items():
            if self._is_gone(pair, second, boot):
                continue
            boots = self._boots(pair, second)
            known = boots.get(boot)
            if known is None or bar.count > known.count:
                boots[boot] = bar
                self._changed(pair, second, bar)
                if boot != self.boot:
                    self.others_until = max(self.others_until, second + BAR_WIDTH)

    def mark_missing(self, stored: Mapping[Pair, FieldBars]) -> int:
        """Have those bars written that `stored` lacks or holds with fewer updates; returns how many."""
        missing = [
            (pair, (second, boot))
            for pair, seconds in self._bars.items()
            for second, boots in seconds.items()
            for boot, bar in boots.items()
            if (known := stored.get(pair, {}).get((second, boot))) is None or known.count < bar.count
        ]
        for key in missing:
            self.outbox.add(key)
        return len(missing)

    def adopt_folded(self, pair: Pair, end: int, boot: str, bar: Bar) -> None:
        """Take over a boot's bar of a whole interval, which stands for all its one-second bars."""
        self._folds.add(pair, end, boot, bar)
        self._mark(pair, end)
        self._see(pair, bar)

    def _boots(self, pair: Pair, second: int) -> dict[str, Bar]:
        """The bars of a second by boot. No `setdefault`: it makes what most often is there already."""
        if pair not in self._bars:
            self._bars[pair] = {}
        seconds = self._bars[pair]
        if second not in seconds:
            seconds[second] = {}
        return seconds[second]

    def _is_gone(self, pair: Pair, second: int, boot: str) -> bool:
        """Whether that bar was folded already, or written: taken in again it would count twice."""
        if second < self._pruned_to:
            return True
        return boot in self._folds.of(pair, self._end_of(second))

    def _end_of(self, second: int) -> int:
        return floor_to(second, self.interval) + self.interval

    def _changed(self, pair: Pair, second: int, bar: Bar) -> None:
        if minutes := self._minutes.get(pair):
            minutes.pop(floor_to(second, MINUTE), None)
        self._mark(pair, self._end_of(second))
        self._see(pair, bar)

    def _mark(self, pair: Pair, end: int) -> None:
        self._version += 1
        if end not in self._unwritten:
            self._unwritten[end] = {}
        self._unwritten[end][pair] = self._version

    def _see(self, pair: Pair, bar: Bar) -> None:
        known = self._newest.get(pair)
        if known is None or bar.closes_after(known):
            self._newest[pair] = bar
            if bar.close_time > self.newest_times.get(pair[0], 0):
                self.newest_times[pair[0]] = bar.close_time

    # ---- to Redis ----

    def take_unflushed(self, limit: int) -> list[tuple[Pair, Field, Bar]]:
        """At most `limit` of the bars that Redis does not have as they are now; they are taken as written."""
        bars = self._bars
        return [(pair, field, bars[pair][field[0]][field[1]]) for pair, field in self.outbox.take(limit)]

    def put_back(self, keys: Iterable[Key]) -> None:
        """These were taken, and not written after all."""
        for pair, (second, boot) in keys:
            if boot in self._bars.get(pair, {}).get(second, {}):  # else it was forgotten meanwhile
                self.outbox.add((pair, (second, boot)))

    @property
    def unflushed(self) -> AbstractSet[Key]:
        """The bars that Redis does not have as they are now."""
        return self.outbox.keys

    # ---- questions ----

    @property
    def pairs(self) -> AbstractSet[Pair]:
        """The exchanges and symbols that have bars."""
        return self._bars.keys()

    def fields(self, pair: Pair, span: Span) -> dict[Field, Bar]:
        """The bars of the seconds that start within the span, by second and boot."""
        return {
            (second, boot): bar for second, boots in self._within(pair, span) for boot, bar in boots.items()
        }

    def bar(self, pair: Pair, span: Span) -> Bar | None:
        """The updates of the seconds that start within the span; None if there are none."""
        return merged([bar for _, boots in self._within(pair, span) for bar in boots.values()])

    def _within(self, pair: Pair, span: Span) -> list[tuple[int, dict[str, Bar]]]:
        seconds = self._bars.get(pair, {})
        if span.end - span.start > len(seconds) * BAR_WIDTH:
            return [item for item in seconds.items() if item[0] in span]
        starts = range(-(-span.start // BAR_WIDTH) * BAR_WIDTH, span.end, BAR_WIDTH)
        return [(second, seconds[second]) for second in starts if second in seconds]

    def parts(self, pair: Pair, span: Span) -> list[tuple[int, Bar]]:
        """The updates of the seconds that start within the span, as bars of whole minutes where it can be.

        With the start (ms) of each. An hour is then 60 bars to merge, not 3600.
        """
        first, last = ceil_to(span.start, MINUTE), floor_to(span.end, MINUTE)
        if first >= last:
            return [(second, bar) for (second, _), bar in self.fields(pair, span).items()]
        minutes = self._minutes.setdefault(pair, {})
        whole: list[tuple[int, Bar]] = []
        for minute in range(first, last, MINUTE):
            bar = minutes.get(minute) or self.bar(pair, Span(minute, minute + MINUTE))
            if bar is not None:
                minutes[minute] = bar
                whole.append((minute, bar))
        return [*self.parts(pair, Span(span.start, first)), *whole, *self.parts(pair, Span(last, span.end))]

    def counts(self, pair: Pair, span: Span) -> Counter[int]:
        """How many updates the bars within the span have, by the start (ms) of their interval."""
        counts: Counter[int] = Counter()
        for second, boots in self._within(pair, span):
            counts[floor_to(second, self.interval)] += sum(bar.count for bar in boots.values())
        return counts

    def newest(self, pair: Pair) -> Bar | None:
        """The bar with the newest update; its close is the latest price."""
        return self._newest.get(pair)

    def unwritten_between(self, pair: Pair, span: Span) -> dict[int, Bar]:
        """By their start (ms) the bars of intervals within the span whose rows are not up to date."""
        return {
            end - self.interval: row.bar
            for end, pairs in self._unwritten.items()
            if pair in pairs and span.start <= end - self.interval and end <= span.end
            if (row := self.aggregate(Due(end, pair, 0), {})) is not None
        }

    # ---- to PostgreSQL ----

    def due(self, before: int) -> list[Due]:
        """What has to be written of intervals that ended at or before `before` (ms), oldest first."""
        return [
            Due(end, pair, version)
            for end in sorted(end for end in self._unwritten if end <= before)
            for pair, version in self._unwritten[end].items()
        ]

    def is_current(self, due: Due) -> bool:
        """Whether the bars of that row have not changed since it was found to be due."""
        return self._unwritten.get(due.end, {}).get(due.pair) == due.version

    def mark_unwritten(self, pair: Pair, starts: Iterable[int]) -> int:
        """Have the rows of the intervals that start then (ms) written again; returns how many that are.

        Those that are to be written anyway are not counted.
        """
        ends = [start + self.interval for start in starts]
        missing = [end for end in ends if pair not in self._unwritten.get(end, ())]
        for end in missing:
            self._mark(pair, end)
        return len(missing)

    def aggregate(self, due: Due, stored: FieldBars) -> Aggregate | None:
        """The row: our bars and those in `stored`, whichever of each field has more updates."""
        folded = self._folds.of(due.pair, due.end)
        span = Span(due.end - self.interval, due.end)
        # What was read from Redis may have been folded meanwhile.
        others = {
            (second, boot): bar
            for (second, boot), bar in stored.items()
            if second in span and not self._is_gone(due.pair, second, boot)
        }
        if others or folded:
            whole = merged([*fuller(self.fields(due.pair, span), others).values(), *folded.values()])
        else:
            whole = self.bar(due.pair, span)
        return None if whole is None else Aggregate(due.pair[0], due.pair[1], due.end, whole)

    def written(self, due: Iterable[Due]) -> None:
        """Rows were written: forget them, unless their bars have changed since."""
        for row in due:
            pairs = self._unwritten.get(row.end, {})
            if pairs.get(row.pair) == row.version:
                del pairs[row.pair]
                self._folds.drop(row.pair, row.end)
                if not pairs:
                    del self._unwritten[row.end]

    def unwritten(self, before: int) -> int:
        """How many rows are to be written of intervals that ended at or before `before` (ms)."""
        return sum(len(pairs) for end, pairs in self._unwritten.items() if end <= before)

    # ---- out ----

    @property
    def pruned_to(self) -> int:
        """Up to when (ms) one-second bars have been forgotten."""
        return self._pruned_to

    def prune(self, now: int) -> list[Key]:
        """Forget bars older than an hour at `now` (ms); returns which were forgotten since the last time."""
        self.forget(floor_to(now - BARS_KEPT - PRUNE_MARGIN, self.interval))
        forgotten, self._forgotten = self._forgotten, []
        return forgotten

    def forget(self, horizon: int) -> None:
        """Forget bars before `horizon` (ms, the end of an interval), folding what is not written yet."""
        if horizon == self._looked_to:
            return
        self._looked_to = horizon
        # Not back again after a step of all clocks: what was forgotten must not be taken in a second time.
        self._pruned_to = max(self._pruned_to, horizon)
        pruned: list[Key] = []
        for pair, seconds in self._bars.items():
            # Seconds come in nearly ascending order, but a late one may stand behind.
            for second in [second for second in seconds if second < horizon]:
                boots, end = seconds.pop(second), self._end_of(second)
                pruned.extend((pair, (second, boot)) for boot in boots)
                if pair in self._unwritten.get(end, {}):
                    for boot, bar in boots.items():
                        self._folds.add(pair, end, boot, bar)
        self._bars = {pair: seconds for pair, seconds in self._bars.items() if seconds}
        for minutes in self._minutes.values():
            for minute in [minute for minute in minutes if minute < horizon]:
                del minutes[minute]
        self.outbox.forget(pruned)
        self._forgotten += pruned

    def folded(self) -> Iterator[tuple[Pair, Field, Bar]]:
        """Unwritten intervals that are older than the bars: pair, the interval's start with the boot, bar."""
        for pair, end, boot, bar in self._folds:
            yield pair, (end - self.interval, boot), bar

    def needed_bars(self, since: int) -> Iterator[tuple[Pair, Field, Bar]]:
        """The one-second bars of rows that are not up to date, and all from `since` (ms) on."""
        for pair, seconds in self._bars.items():
            unwritten = {end for end, pairs in self._unwritten.items() if pair in pairs}
            for second, boots in seconds.items():
                if second >= since or self._end_of(second) in unwritten:
                    for boot, bar in boots.items():
                        yield pair, (second, boot), bar
