"""The one-second bars of a minute in few bytes: a tenth of what they take as objects."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, compress
from typing import Final

import msgspec

from marketflow.domain.bar_heads import BarHeads, Part
from marketflow.domain.bars import BAR_WIDTH, Bar
from marketflow.domain.packed_bars import count_of, last_sequence, pack_bar, unpack_bar
from marketflow.domain.periods import MINUTE, floor_to

_MOST_OF_A_BYTE: Final = 256
Field = tuple[int, str]
"""The second (ms) and the boot of a bar."""


class MinuteFields(msgspec.Struct, frozen=True, gc=False):
    """Which bars a minute has, in columns. Most pairs have the same, and share them."""

    boots: tuple[str, ...]
    """Those that have bars in it."""
    seconds: bytes
    """Of each bar, within the minute. They ascend."""
    owners: array[int]
    """Of each bar, the place of its boot."""

    @classmethod
    def of(cls, seconds: bytes, boots: Sequence[str]) -> MinuteFields:
        """The seconds within the minute, and the boot of each. The boots of a second ascend, too."""
        places = {boot: place for place, boot in enumerate(dict.fromkeys(boots))}
        owners = array("B" if len(places) <= _MOST_OF_A_BYTE else "L", [places[boot] for boot in boots])
        return cls(tuple(places), seconds, owners)

    def where(self, there: Sequence[bool]) -> MinuteFields:
        """Only those of the bars that are there."""
        return MinuteFields.of(
            bytes(compress(self.seconds, there)),
            [self.boots[owner] for owner in compress(self.owners, there)],
        )


class PackedMinute(msgspec.Struct, frozen=True, gc=False):
    """The bars of one exchange, symbol and minute, of every boot: at most one of each second and boot.

    Minutes of equal bars are equal.
    """

    start: int
    """Of the minute, ms."""
    _fields: MinuteFields
    _heads: Part
    _bars: bytes
    """Packed, one after the other."""

    @classmethod
    def of(cls, start: int, bars: Mapping[Field, Bar]) -> PackedMinute:
        """Bars of the minute that starts at `start` (ms)."""
        fields = sorted(bars)
        packed = [pack_bar(bars[field], field[0]) for field in fields]
        seconds = bytes([(second - start) // BAR_WIDTH for second, _ in fields])
        heads = BarHeads(packed).part(0, len(packed))
        return cls(start, MinuteFields.of(seconds, [boot for _, boot in fields]), heads, b"".join(packed))

    @property
    def boots(self) -> tuple[str, ...]:
        """Those that have bars in it."""
        return self._fields.boots

    @property
    def count(self) -> int | None:
        """How many updates its bars have, as they say; None if one has to look at them."""
        return self._heads.updates

    def __len__(self) -> int:
        """How many bars."""
        return len(self._fields.seconds)

    def __iter__(self) -> Iterator[tuple[int, str, Bar]]:
        """Second (ms), boot and bar of each.

        Raises:
            ValueError: one of them is no bar. Those that `of` has packed are.
        """
        for second, boot, packed in self._entries():
            yield second, boot, unpack_bar(packed, second)

    def counts(self) -> Iterator[tuple[int, str, int]]:
        """Second (ms), boot and number of updates of each. All have been looked at."""
        for second, boot, packed in self._entries():
            yield second, boot, count_of(packed)

    def genuine(self, is_foreign: Callable[[Bar, int], bool]) -> tuple[dict[Field, Bar], list[Field]]:
        """The bars, and the fields of those that are none, or are foreign by their bar and second."""
        bars: dict[Field, Bar] = {}
        others: list[Field] = []
        for second, boot, packed in self._entries():
            try:
                bar = unpack_bar(packed, second)
            except ValueError:
                others.append((second, boot))
                continue
            if is_foreign(bar, second):
                others.append((second, boot))
            else:
                bars[second, boot] = bar
        return bars, others

    @property
    def fields(self) -> list[Field]:
        """Second (ms) and boot of each."""
        seconds, owners = self._fields.seconds, self._fields.owners
        return [
            (self.start + second * BAR_WIDTH, self.boots[owner])
            for second, owner in zip(seconds, owners, strict=True)
        ]

    @property
    def seconds(self) -> list[int]:
        """Those of its bars (ms), ascending."""
        return [self.start + second * BAR_WIDTH for second in self._fields.seconds]

    @property
    def end(self) -> int:
        """Of its last second that has bars (ms)."""
        return self.start + (self._fields.seconds[-1] + 1) * BAR_WIDTH

    def next_sequence(self, boot: str) -> int:
        """Greater than all sequences in the bars of other boots than this; 0 if there are none."""
        if boot not in self.boots:
            return 1 + self._heads.last_sequence
        others = [last_sequence(packed) for _, owner, packed in self._entries() if owner != boot]
        return 1 + max(others, default=-1)

    def get(self, second: int, boot: str) -> Bar:
        """The bar of that second (ms) and boot.

        Raises:
            KeyError: there is none.
        """
        at, fields, lengths = (second - self.start) // BAR_WIDTH, self._fields, self._heads.lengths
        place = fields.seconds.find(at)
        while place >= 0:
            if self.boots[fields.owners[place]] == boot:
                begin = sum(lengths[:place])
                return unpack_bar(self._bars[begin : begin + lengths[place]], second)
            place = fields.seconds.find(at, place + 1)
        raise KeyError(second, boot)

    def _entries(self) -> Iterator[tuple[int, str, bytes]]:
        fields, lengths = self._fields, self._heads.lengths
        ends = accumulate(lengths)
        for second, owner, length, end in zip(fields.seconds, fields.owners, lengths, ends, strict=True):
            yield self.start + second * BAR_WIDTH, self.boots[owner], self._bars[end - length : end]


def by_minute(bars: Mapping[Field, Bar]) -> dict[int, PackedMinute]:
    """The bars of each minute, by its start (ms)."""
    minutes: dict[int, dict[Field, Bar]] = {}
    for field, bar in bars.items():
        minutes.setdefault(floor_to(field[0], MINUTE), {})[field] = bar
    return {start: PackedMinute.of(start, of_minute) for start, of_minute in minutes.items()}
