"""The one-second bars of one exchange and symbol: the newest as objects, others packed by the minute.

The states of a minute:

```
           a bar changes        unchanged from one `pack` to the next
(none) ──────────────> open ────────────────────────────────────────> packed
  │                     ^                                             │  ^
  │                     └─────────────── a bar changes ───────────────┘  │
  │ bars of other boots are adopted                     they are read    │
  └──────────────────────────────────> adopted ──────────────────────────┘
```
A bar takes about 600 bytes in an open minute, and less than 100 in the others. Reading does not open. Bars of
an adopted minute have not been looked at: some may be foreign, and are left out when it is read. Until then
they count as they say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from marketflow.app.ports import Field, FieldBars
from marketflow.app.share.foreign_bars import is_foreign
from marketflow.domain.bars import BAR_WIDTH, Bar, merged
from marketflow.domain.packed_minute import PackedMinute
from marketflow.domain.periods import MINUTE, Span, floor_to

Boots = dict[str, Bar]
"""The bars of a second by boot."""


class Packed(NamedTuple):
    """A packed minute whose bars have been looked at."""

    minute: PackedMinute
    whole: Bar
    """All of them merged, since most questions are about whole minutes."""


def _ignore(_minute: int, _fields: Sequence[Field]) -> None:
    """No-op callback."""


class PairBars:
    """Bars by second and boot. Their minutes are open, packed or adopted."""

    def __init__(self, found_foreign: Callable[[int, Sequence[Field]], None] = _ignore) -> None:
        """`found_foreign` is called when bars of a minute (ms) were left out, with their fields."""
        self._found_foreign = found_foreign
        self._open: dict[int, dict[int, Boots]] = {}
        """By minute and second (ms). Each minute is in one of these three."""
        self._packed: dict[int, Packed] = {}
        self._adopted: dict[int, PackedMinute] = {}
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

    def adopt(self, minute: PackedMinute) -> bool:
        """Take in the bars of a minute that has none yet; returns whether that is so."""
        if self._has(minute.start):
            return False
        self._adopted[minute.start] = minute
        return True

    def check(self, minute: int) -> None:
        """Look at the bars of a minute, if that was not done, and leave out foreign ones."""
        adopted = self._adopted.pop(minute, None)
        if adopted is not None:
            bars, foreign = genuine(adopted)
            self._pack(minute, bars, None if foreign else adopted)
            if foreign:
                self._found_foreign(minute, foreign)

    def is_known(self, minute: PackedMinute) -> bool:
        """Whether the bars of this minute are just these."""
        known = self._packed.get(minute.start)
        return minute == (self._adopted.get(minute.start) if known is None else known.minute)

    @property
    def unchecked(self) -> list[int]:
        """The minutes whose bars have not been looked at, the newest first."""
        return sorted(self._adopted, reverse=True)

    def get(self, second: int, boot: str) -> Bar:
        """The bar of that second (ms) and boot.

        Raises:
            KeyError: there is none.
        """
        minute = second - second % MINUTE
        if (seconds := self._open.get(minute)) is not None:
            return seconds[second][boot]
        self.check(minute)
        return self._packed[minute].minute.get(second, boot)

    def within(self, span: Span) -> Iterator[tuple[int, str, Bar]]:
        """Second (ms), boot and bar of each that starts within the span."""
        for minute in self._minutes(span):
            whole = span.start <= minute and minute + MINUTE <= span.end
            for second, boot, bar in self._of(minute):
                if whole or second in span:
                    yield second, boot, bar

    def of_boot(self, boot: str) -> list[tuple[int, Bar]]:
        """The second (ms) and bar of each of that boot."""
        found: list[tuple[int, Bar]] = []
        for minute in self._all():
            packed = self._packed.get(minute)
            held = self._adopted.get(minute) if packed is None else packed.minute
            if held is None or boot in held.boots:
                found += [(second, bar) for second, of_boot, bar in self._of(minute) if of_boot == boot]
        return found

    def counts(self, span: Span) -> Iterator[tuple[int, str, int]]:
        """The same with the number of updates in place of the bar. It takes a tenth of the time."""
        for minute in self._minutes(span):
            self.check(minute)
            packed = self._packed.get(minute)
            counts = packed.minute.counts() if packed is not None else _counts(self._of(minute))
            for second, boot, count in counts:
                if second in span:
                    yield second, boot, count

    def totals(self, span: Span, *, without: str | None = None) -> Iterator[tuple[int, int]]:
        """Numbers of updates, each with the second or the minute (ms) of the span that has them.

        `without` leaves out the bars of that boot. Minutes that have not been looked at count as they say:
        foreign bars are among them.
        """
        for minute in self._minutes(span):
            packed = self._packed.get(minute)
            held = self._adopted.get(minute) if packed is None else packed.minute
            whole = span.start <= minute and minute + MINUTE <= span.end
            if held is not None and held.count is not None and whole and without not in held.boots:
                yield minute, held.count
            else:
                within = Span(max(span.start, minute), min(span.end, minute + MINUTE))
                yield from ((second, count) for second, boot, count in self.counts(within) if boot != without)

    def bar(self, span: Span) -> Bar | None:
        """The updates of the seconds that start within the span; None if there are none."""
        parts: list[Bar] = []
        for minute in self._minutes(span):
            whole = span.start <= minute and minute + MINUTE <= span.end
            self.check(minute)
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
            self._pack(minute, bars)
            packed += len(bars)
        return packed

    @property
    def newest(self) -> Bar | None:
        """The bar of the newest minute. It has the newest update."""
        found = (self.bar(Span(minute, minute + MINUTE)) for minute in self.minutes)
        return next((bar for bar in found if bar is not None), None)

    @property
    def minutes(self) -> list[int]:
        """Those that have bars, the newest first."""
        return sorted(self._all(), reverse=True)

    def take_before(self, horizon: int) -> list[tuple[int, str, Bar]]:
        """Forget the bars of the minutes before `horizon` (ms, a whole minute), and return them."""
        taken: list[tuple[int, str, Bar]] = []
        for minute in [minute for minute in self._all() if minute < horizon]:
            taken += self._of(minute)
            self._open.pop(minute, None)
            self._packed.pop(minute, None)
        return taken

    @property
    def empty(self) -> bool:
        """Whether there are no bars."""
        return not self._open and not self._packed and not self._adopted

    def __iter__(self) -> Iterator[tuple[int, str, Bar]]:
        """Second (ms), boot and bar of each."""
        for minute in self._all():
            yield from self._of(minute)

    def _minutes(self, span: Span) -> list[int]:
        """The minutes that have bars, and of which a second may start within the span."""
        first = floor_to(span.start, MINUTE)
        if (span.end - first) // MINUTE > len(self._open) + len(self._packed) + len(self._adopted):
            return [minute for minute in self._all() if first <= minute < span.end]
        return [minute for minute in range(first, span.end, MINUTE) if self._has(minute)]

    def _all(self) -> list[int]:
        return [*self._open, *self._packed, *self._adopted]

    def _has(self, minute: int) -> bool:
        return minute in self._open or minute in self._packed or minute in self._adopted

    def _pack(self, minute: int, bars: FieldBars, packed: PackedMinute | None = None) -> None:
        """Keep the bars of a minute, if there are any, packed: as `packed` if they are that already."""
        whole = merged(bars.values())
        if whole is not None:
            self._packed[minute] = Packed(PackedMinute.of(minute, bars) if packed is None else packed, whole)

    def _of(self, minute: int) -> Iterator[tuple[int, str, Bar]]:
        self.check(minute)
        packed = self._packed.get(minute)
        if packed is not None:
            return iter(packed.minute)
        seconds = self._open.get(minute, {})
        return ((second, boot, bar) for second, boots in seconds.items() for boot, bar in boots.items())

    def _opened(self, minute: int) -> dict[int, Boots]:
        seconds: dict[int, Boots] = {}
        self.check(minute)
        packed = self._packed.pop(minute, None)
        if packed is not None:
            for second, boot, bar in packed.minute:
                seconds.setdefault(second, {})[boot] = bar
        return seconds


def _counts(bars: Iterator[tuple[int, str, Bar]]) -> Iterator[tuple[int, str, int]]:
    return ((second, boot, bar.count) for second, boot, bar in bars)


def genuine(minute: PackedMinute) -> tuple[dict[Field, Bar], list[Field]]:
    """The bars of a minute from a store, and the fields of those that are foreign."""
    return minute.genuine(lambda bar, second: is_foreign(bar, second, BAR_WIDTH))
