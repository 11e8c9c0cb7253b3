"""One-second bars of the last hour: those of this boot, and those that earlier boots have left behind."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

from marketflow.app.ports import BARS_KEPT, Field, FieldBars
from marketflow.app.share.held_bars import HeldBars
from marketflow.app.share.outbox import ReceivedOutbox
from marketflow.app.share.pair_bars import genuine
from marketflow.app.share.sequences import FOLLOWED, PER_MS
from marketflow.app.share.unwritten import Unwritten
from marketflow.domain.bars import BAR_WIDTH, Bar
from marketflow.domain.packed_minute import PackedMinute
from marketflow.domain.periods import MINUTE, Span, floor_to
from marketflow.domain.prices import FUTURE_TOLERANCE, Pair

Key = tuple[Pair, Field]
"""Names one bar."""

PRUNE_MARGIN: Final = MINUTE
"""How much longer (ms) they are kept in memory, for questions that are being answered."""


def fuller(first: FieldBars, second: FieldBars) -> dict[Field, Bar]:
    """Of each field the bar with more updates. A bar only grows, so that one is the newer copy."""
    bars = dict(first)
    for field, bar in second.items():
        known = bars.get(field)
        if known is None or bar.count > known.count:
            bars[field] = bar
    return bars


class Horizon:
    """Up to when one-second bars have been forgotten (ms, a whole minute)."""

    def __init__(self) -> None:
        self.reached = 0
        """The greatest it has been. What was forgotten must not be taken in a second time, not even after
        all clocks have stepped back."""
        self._now = 0
        """Where it is now: before `reached` after such a step."""
        self._forgotten: list[Key] = []

    def moved_to(self, horizon: int) -> bool:
        """Move it; returns whether there may be bars to forget."""
        if horizon == self._now:
            return False
        self._now = horizon
        self.reached = max(self.reached, horizon)
        return True

    def note(self, forgotten: list[Key]) -> None:
        """These bars were forgotten."""
        self._forgotten += forgotten

    def take_forgotten(self) -> list[Key]:
        """The bars that were forgotten since this was last called."""
        taken, self._forgotten = self._forgotten, []
        return taken


class Others:
    """How far the bars of other boots go that are known."""

    def __init__(self) -> None:
        self.until = 0
        """From when on (ms) there is none."""
        self.next_sequences: dict[str, int] = {}
        """By exchange, greater than all sequences in them that are to be followed."""

    def see(self, exchange: str, end: int, sequence: int) -> None:
        """Bars were adopted that end at `end` (ms) or before, with sequences up to this."""
        self.until = max(self.until, end)
        if self.next_sequences.get(exchange, 0) <= sequence < FOLLOWED:
            self.next_sequences[exchange] = sequence + 1


class SecondBars(HeldBars):
    """Bars by exchange, symbol, second and boot.

    A bar only grows: of two copies the one with more updates is the newer. Every change is to be written,
    the bar to Redis and the row of its interval to PostgreSQL.
    """

    def __init__(self, *, boot: str, interval: int) -> None:
        """`interval` is the length (ms) of an aggregate."""
        super().__init__()
        self.boot = boot
        self.interval = interval
        self.outbox: ReceivedOutbox[Key] = ReceivedOutbox()
        """The bars that Redis does not have as they are now."""
        self.unwritten = Unwritten()
        """The intervals that PostgreSQL does not have as they are now."""
        self.others = Others()
        self._horizon = Horizon()

    # ---- in ----

    def add(self, pair: Pair, second: int, bar: Bar, sequence: int = 0, received: float = -math.inf) -> None:
        """Merge a bar of updates accepted by this boot just now, its sequences counted from `sequence`.

        They were `received` then (seconds of Trio's clock).
        """
        boots = self._of(pair).boots(second)
        known = boots.get(self.boot)
        whole = bar.shifted(sequence) if known is None else known.followed_by(bar, sequence)
        boots[self.boot] = whole
        self._changed(pair, second, whole)
        self.outbox.add_received((pair, (second, self.boot)), received)

    def adopt(self, pair: Pair, bars: FieldBars) -> None:
        """Take over bars that another boot left behind; those known already stay unless they have grown.

        There must be no foreign ones among them (`marketflow.app.share.foreign_bars`).
        """
        known = self._counts(pair, bars)
        new = {
            (second, boot): bar
            for (second, boot), bar in bars.items()
            if bar.count > known.get((second, boot), 0) and not self.is_gone(pair, second, boot)
        }
        if not new:
            return
        for (second, boot), bar in new.items():
            self._of(pair).boots(second)[boot] = bar
            self._changed(pair, second, bar)
            if boot != self.boot:
                self.others.see(pair[0], second + BAR_WIDTH, max(bar.open_sequence, bar.close_sequence))

    def adopt_minutes(self, pair: Pair, minutes: Iterable[PackedMinute]) -> None:
        """The same for bars as a store has them. In minutes without known ones they are not looked at yet."""
        for minute in minutes:
            known = self._bars.get(pair)
            if known is not None and known.is_known(minute):
                continue
            last = minute.next_sequence(self.boot) - 1
            # No boot makes sequences beyond the time, unless its clock was behind.
            doubtful = last >= (minute.end + FUTURE_TOLERANCE) * PER_MS or self._is_gone_in_part(pair, minute)
            if doubtful or not self._of(pair).adopt(minute):
                self._adopt_genuine(pair, minute)
                continue
            for end in _ends_of(minute, self.interval):
                self.unwritten.mark(pair, end)
            self._minutes.changed(pair, minute.start)
            if minute.boots != (self.boot,):
                self.others.see(pair[0], minute.end, last)
        if pair in self._bars and (newest := self._bars[pair].newest) is not None:
            self.newest_bars.see(pair, newest)

    def _adopt_genuine(self, pair: Pair, minute: PackedMinute) -> None:
        """Look at each bar of the minute, and adopt those that are not foreign."""
        bars, foreign = genuine(minute)
        self.foreign.tell(pair, foreign)
        self.adopt(pair, bars)

    def _is_gone_in_part(self, pair: Pair, minute: PackedMinute) -> bool:
        """Whether some of these bars were folded already, or written."""
        folds = self.unwritten.folds
        ends = range(minute.start + self.interval, minute.start + MINUTE + 1, self.interval)
        return minute.start < self._horizon.reached or any(
            folds.of(pair, end).keys() & set(minute.boots) for end in ends
        )

    def _counts(self, pair: Pair, fields: Iterable[Field]) -> dict[Field, int]:
        """How many updates the known bars have, for the time that these are of."""
        seconds = [second for second, _ in fields]
        if pair not in self._bars or not seconds:
            return {}
        span = Span(min(seconds), max(seconds) + BAR_WIDTH)
        return {(second, boot): count for second, boot, count in self._bars[pair].counts(span)}

    def adopt_folded(self, pair: Pair, end: int, boot: str, bar: Bar) -> None:
        """Take over a boot's bar of a whole interval, which stands for all its one-second bars."""
        self.unwritten.folds.add(pair, end, boot, bar)
        self.unwritten.mark(pair, end)
        self.newest_bars.see(pair, bar)
        self.others.see(pair[0], end, max(bar.open_sequence, bar.close_sequence))

    def renumber(self, exchange: str, by: int) -> None:
        """Have the sequences in all bars of this boot and exchange be greater by so much."""
        own = [
            (pair, second, bar)
            for pair, bars in self._bars.items()
            if pair[0] == exchange
            for second, bar in bars.of_boot(self.boot)
        ]
        for pair, second, bar in own:
            self._bars[pair].boots(second)[self.boot] = shifted = bar.shifted(by)
            self._changed(pair, second, shifted)
            self.outbox.add((pair, (second, self.boot)))

    def _changed(self, pair: Pair, second: int, bar: Bar) -> None:
        # `Unwritten.mark` and `_end_of`, written out for speed: it is called for each symbol of each chunk.
        self.unwritten.outboxes[pair].add(second - second % self.interval + self.interval)
        self.newest_bars.see(pair, bar)
        self._minutes.changed(pair, second)

    def _end_of(self, second: int) -> int:
        """The end (ms) of the interval that a second belongs to."""
        return second - second % self.interval + self.interval

    # ---- to Redis ----

    def take_unflushed(self, limit: int) -> tuple[list[tuple[Pair, Field, Bar]], int]:
        """Take the first `limit` bars that Redis does not have as they are now.

        The number is their version, to acknowledge them by (see `Outbox`).
        """
        bars, waiting = self._bars, self.outbox.waiting
        keys = list(waiting if len(waiting) <= limit else islice(waiting, limit))
        taken = [(pair, field, bars[pair].get(*field)) for pair, field in keys]
        return taken, self.outbox.take(keys)

    def mark_missing(self, pair: Pair, stored: Mapping[int, PackedMinute]) -> int:
        """Have those bars written that `stored` lacks or holds with fewer updates; returns how many."""
        bars, missing = self._bars.get(pair), 0
        if bars is None:
            return 0
        for start in bars.minutes:
            held = stored.get(start)
            if held is not None and bars.is_known(held):
                continue
            counts = {} if held is None else {field: bar.count for field, bar in genuine(held)[0].items()}
            for second, boot, count in bars.counts(Span(start, start + MINUTE)):
                if counts.get((second, boot), 0) < count:
                    self.outbox.add((pair, (second, boot)))
                    missing += 1
        return missing

    def totals(self, pair: Pair, span: Span, *, own: bool) -> Iterator[tuple[int, int]]:
        """How many updates there are, each number with a time (ms), with or without those of this boot.

        The time is a second, or a minute if intervals are as long. All of them are within the span. Minutes
        are not looked at for it: foreign bars count until they are found.
        """
        bars = self._bars.get(pair)
        if bars is None:
            return iter(())
        without = None if own else self.boot
        if self.interval == MINUTE:
            return bars.totals(span, without=without)
        return ((second, count) for second, boot, count in bars.counts(span) if boot != without)

    # ---- out ----

    @property
    def pruned_to(self) -> int:
        """Up to when (ms) one-second bars have been forgotten."""
        return self._horizon.reached

    def is_gone(self, pair: Pair, second: int, boot: str) -> bool:
        """Whether that bar was folded already, or written: taken in again it would count twice."""
        if second < self._horizon.reached:
            return True
        return boot in self.unwritten.folds.of(pair, self._end_of(second))

    def prune(self, now: int) -> list[Key]:
        """Forget bars older than an hour at `now` (ms); returns which were forgotten since the last time."""
        self.forget(floor_to(now - BARS_KEPT - PRUNE_MARGIN, MINUTE))
        return self._horizon.take_forgotten()

    def forget(self, horizon: int) -> None:
        """Forget bars before `horizon` (ms, a whole minute), folding what is not written yet."""
        if not self._horizon.moved_to(horizon):
            return
        pruned: list[Key] = []
        for pair, second, boot, bar in self._take_before(horizon):
            pruned.append((pair, (second, boot)))
            if self.unwritten.has(pair, end := self._end_of(second)):
                self.unwritten.folds.add(pair, end, boot, bar)
        self.outbox.forget(pruned)
        self._horizon.note(pruned)


def _ends_of(minute: PackedMinute, interval: int) -> Iterable[int]:
    """The ends (ms) of the intervals that its bars belong to."""
    if interval % MINUTE == 0:
        return (floor_to(minute.start, interval) + interval,)
    return dict.fromkeys(floor_to(second, interval) + interval for second in minute.seconds)
