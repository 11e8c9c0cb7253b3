"""Updates of one exchange that are not in Redis yet, oldest first."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from marketflow.app.ports import Written
from marketflow.domain.bars import Bar
from marketflow.domain.columns import Columns


class UpdateRun(NamedTuple):
    """A run of updates of one symbol."""

    updates: Written
    received_monotonic: float
    """Seconds of Trio's clock."""
    oldest: int
    """The least of the timestamps (ms)."""
    newest: int
    """The greatest."""

    @classmethod
    def in_bars(cls, updates: Written, received_monotonic: float, bars: Collection[Bar]) -> UpdateRun:
        """A run of one update or more. Their bars tell the least and greatest timestamp without a search."""
        if len(bars) == 1:
            (bar,) = bars
            return cls(updates, received_monotonic, bar.open_time, bar.close_time)
        oldest, newest = min(bar.open_time for bar in bars), max(bar.close_time for bar in bars)
        return cls(updates, received_monotonic, oldest, newest)

    @classmethod
    def of(cls, updates: Written, received_monotonic: float) -> UpdateRun:
        """A run of one update or more."""
        timestamps = updates.columns.timestamps
        return cls(updates, received_monotonic, min(timestamps), max(timestamps))

    @property
    def length(self) -> int:
        """How many updates."""
        return len(self.updates.sequences)

    def split(self, index: int) -> tuple[UpdateRun, UpdateRun]:
        """The first `index` updates, and the rest."""
        return self._part(slice(index)), self._part(slice(index, None))

    def _part(self, part: slice) -> UpdateRun:
        whole = self.updates
        return self._with(whole.sequences[part], whole.columns.slice(part))

    def renumbered(self, by: int) -> UpdateRun:
        """The same with sequences that are greater by so much."""
        numbers = self.updates.sequences
        if isinstance(numbers, range):
            moved: Sequence[int] = range(numbers.start + by, numbers.stop + by)
        else:
            moved = [number + by for number in numbers]
        whole = self.updates
        return self._replace(updates=Written(whole.exchange, whole.symbol, moved, whole.columns))

    def since(self, oldest: int) -> UpdateRun | None:
        """The updates whose timestamp (ms) is not before `oldest`; None if there are none."""
        if self.oldest >= oldest:
            return self
        whole = self.updates
        kept = [i for i, timestamp in enumerate(whole.columns.timestamps) if timestamp >= oldest]
        if not kept:
            return None
        return self._with([whole.sequences[i] for i in kept], whole.columns.take(kept))

    def _with(self, sequences: Sequence[int], columns: Columns) -> UpdateRun:
        whole = self.updates
        return UpdateRun.of(
            Written(whole.exchange, whole.symbol, sequences, columns), self.received_monotonic
        )


class PendingUpdates(deque[UpdateRun]):
    """A queue of runs. Updates leave it at the old end: taken for a flush, or thrown away."""

    def renumber(self, by: int) -> None:
        """Have all sequences be greater by so much."""
        runs = [run.renumbered(by) for run in self]
        self.clear()
        self.extend(runs)

    def take(self, limit: int) -> Iterator[UpdateRun]:
        """Take runs from the oldest end: `limit` updates, or all there are."""
        while self and limit > 0:
            run = self.popleft()
            length = run.length
            if length > limit:
                run, rest = run.split(limit)
                self.appendleft(rest)
            limit -= length  # Below 0 after a split, which ends the loop as well.
            yield run

    def discard(self, limit: int) -> int:
        """Throw away the `limit` oldest; returns how many there were."""
        return sum(run.length for run in self.take(limit))

    def discard_before(self, oldest: int) -> int:
        """Throw away runs of which every update is before `oldest` (ms), up to the first that is not.

        Returns how many updates that were.
        """
        discarded = 0
        while self and self[0].newest < oldest:
            discarded += self.popleft().length
        return discarded
