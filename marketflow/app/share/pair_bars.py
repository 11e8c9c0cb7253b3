"""The one-second bars of one exchange and symbol: the newest as objects, older ones packed by the minute."""

from __future__ import annotations

from collections.abc import Iterator

from marketflow.app.ports import Field, FieldBars
from marketflow.domain.bars import Bar, merged
from marketflow.domain.packed_minute import PackedMinute
from marketflow.domain.periods import MINUTE, Span, floor_to

Boots = dict[str, Bar]
"""The bars of a second by boot."""


class PairBars:
    """Bars by second and boot.

    ```
             a bar changes                 unchanged from one `pack` to the next
    (none) ────────────────> open minute ───────────────────────────────────────> packed minute
                                  ^                                                     ^  │
                                  └──────────────── a bar changes ──────────────────────│──┘
    (none) ──────────────────────────── bars of other boots are adopted ────────────────┘
    ```
    A bar takes about 600 bytes in an open minute, and less than 100 in a packed one. Reading does not open.
    """

    def __init__(self) -> None:
        self._open: dict[int, dict[int, Boots]] = {}
        """By minute and second (ms). A minute is either here or packed."""
        self._packed: dict[int, PackedMinute] = {}
        self._changed: set[int] = set()
        """The minutes that have changed since `pack` was last called."""

    def boots(self, second: int) -> Boots:
        """The bars of a second, to put in one or more."""
        minute = second - second % MINUTE
        self._changed.add(minute)
        seconds = self._open.get(minute)
        if seconds is None:
            seconds = self._open[minute] = self._opened(minute)
        boots = seconds.get(second)
        if boots is None:
            boots = seconds[second] = {}
        return boots

    def adopt(self, bars: FieldBars) -> None:
        """Take in bars that are not known, or have fewer updates. Minutes without known ones come packed."""
        minutes: dict[int, dict[Field, Bar]] = {}
        for (second, boot), bar in bars.items():
            minutes.setdefault(floor_to(second, MINUTE), {})[second, boot] = bar
        for minute, of_minute in minutes.items():
            if minute in self._open or minute in self._packed:
                for (second, boot), bar in of_minute.items():
                    self.boots(second)[boot] = bar
            else:
                self._packed[minute] = PackedMinute.of(minute, of_minute)

    def get(self, second: int, boot: str) -> Bar:
        """The bar of that second (ms) and boot.

        Raises:
            KeyError: there is none.
        """
        minute = floor_to(second, MINUTE)
        if (packed := self._packed.get(minute)) is not None:
            return packed.get(second, boot)
        return self._open[minute][second][boot]

    def within(self, span: Span) -> Iterator[tuple[int, str, Bar]]:
        """Second (ms), boot and bar of each that starts within the span."""
        for minute in self._minutes(span):
            whole = span.start <= minute and minute + MINUTE <= span.end
            for second, boot, bar in self._of(minute):
                if whole or second in span:
                    yield second, boot, bar

    def counts(self, span: Span) -> Iterator[tuple[int, str, int]]:
        """The same with the number of updates in place of the bar. It takes a tenth of the time."""
        for minute in self._minutes(span):
            packed = self._packed.get(minute)
            counts = packed.counts() if packed is not None else _counts(self._of(minute))
            for second, boot, count in counts:
                if second in span:
                    yield second, boot, count

    def bar(self, span: Span) -> Bar | None:
        """The updates of the seconds that start within the span; None if there are none."""
        parts: list[Bar] = []
        for minute in self._minutes(span):
            whole = span.start <= minute and minute + MINUTE <= span.end
            if whole and (packed := self._packed.get(minute)) is not None:
                parts.append(packed.whole)
            else:
                parts += [bar for second, _, bar in self._of(minute) if whole or second in span]
        return merged(parts)

    def pack(self) -> int:
        """Pack the minutes that have not changed since the last call; returns how many bars they have."""
        changed, self._changed = self._changed, set()
        packed = 0
        for minute in [minute for minute in self._open if minute not in changed]:
            bars = {(second, boot): bar for second, boot, bar in self._of(minute)}
            del self._open[minute]
            self._packed[minute] = PackedMinute.of(minute, bars)
            packed += len(bars)
        return packed

    def take_before(self, horizon: int) -> list[tuple[int, str, Bar]]:
        """Forget the bars of the minutes before `horizon` (ms, a whole minute), and return them."""
        taken: list[tuple[int, str, Bar]] = []
        for minute in [minute for minute in (*self._open, *self._packed) if minute < horizon]:
            taken += self._of(minute)
            self._open.pop(minute, None)
            self._packed.pop(minute, None)
        return taken

    @property
    def empty(self) -> bool:
        """Whether there are no bars."""
        return not self._open and not self._packed

    def __iter__(self) -> Iterator[tuple[int, str, Bar]]:
        """Second (ms), boot and bar of each."""
        for minute in [*self._open, *self._packed]:
            yield from self._of(minute)

    def _minutes(self, span: Span) -> list[int]:
        """The minutes that have bars, and of which a second may start within the span."""
        first = floor_to(span.start, MINUTE)
        if (span.end - first) // MINUTE > len(self._open) + len(self._packed):
            return [minute for minute in (*self._open, *self._packed) if first <= minute < span.end]
        asked = range(first, span.end, MINUTE)
        return [minute for minute in asked if minute in self._open or minute in self._packed]

    def _of(self, minute: int) -> Iterator[tuple[int, str, Bar]]:
        packed = self._packed.get(minute)
        if packed is not None:
            return iter(packed)
        return (
            (second, boot, bar) for second, boots in self._open[minute].items() for boot, bar in boots.items()
        )

    def _opened(self, minute: int) -> dict[int, Boots]:
        seconds: dict[int, Boots] = {}
        packed = self._packed.pop(minute, None)
        if packed is not None:
            for second, boot, bar in packed:
                seconds.setdefault(second, {})[boot] = bar
        return seconds


def _counts(bars: Iterator[tuple[int, str, Bar]]) -> Iterator[tuple[int, str, int]]:
    return ((second, boot, bar.count) for second, boot, bar in bars)
