"""Copies of the one-second bars that the window has of an exchange."""

from __future__ import annotations

from collections.abc import Iterable

from marketflow.app.ports import Field
from marketflow.app.share.held_bars import HeldBars
from marketflow.app.share.pair_bars import genuine
from marketflow.domain.bars import Bar
from marketflow.domain.packed_minute import PackedMinute
from marketflow.domain.prices import Pair


class MirroredBars(HeldBars):
    """Bars only grow: of two copies the one with more updates is the newer."""

    def __init__(self) -> None:
        super().__init__()
        self.forgotten_to = 0
        """Bars before this time (ms) have been forgotten."""

    def copy_minutes(self, pair: Pair, minutes: Iterable[PackedMinute]) -> None:
        """Take over bars as the window has them."""
        bars = self._of(pair)
        for minute in minutes:
            if minute.start < self.forgotten_to or bars.is_known(minute):
                continue
            if bars.adopt(minute):
                self._minutes.changed(pair, minute.start)
                continue
            known, foreign = genuine(minute)
            self.foreign.tell(pair, foreign)
            for field, bar in known.items():
                self.copy(pair, field, bar)
        if (newest := bars.newest) is not None:
            self.newest_bars.see(pair, newest)

    def copy(self, pair: Pair, field: Field, bar: Bar) -> None:
        """Take over a bar, unless it is an older copy than ours."""
        second, boot = field
        if second < self.forgotten_to:
            return
        boots = self._of(pair).boots(second)
        known = boots.get(boot)
        if known is None or known.count < bar.count:
            boots[boot] = bar
            self.newest_bars.see(pair, bar)
            self._minutes.changed(pair, second)

    def forget(self, horizon: int) -> None:
        """Forget the bars before `horizon` (ms, a whole minute)."""
        if horizon > self.forgotten_to:
            self.forgotten_to = horizon
            for _ in self._take_before(horizon):
                pass
