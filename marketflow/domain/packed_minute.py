"""The one-second bars of a minute in few bytes: a tenth of what they take as objects."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final

import msgspec

from marketflow.domain.bars import BAR_WIDTH, Bar
from marketflow.domain.packed_bars import count_of, last_sequence, pack_bar, unpack_bar
from marketflow.domain.periods import MINUTE, floor_to

_MOST_OF_A_BYTE: Final = 256
Field = tuple[int, str]
"""The second (ms) and the boot of a bar."""


class PackedMinute(msgspec.Struct, frozen=True, gc=False):
    """The bars of one exchange, symbol and minute, of every boot: at most one of each second and boot.

    They are in columns: the second within the minute, the place of the boot, and the length of the bytes.
    """

    start: int
    """Of the minute, ms."""
    boots: tuple[str, ...]
    """Those that have bars in it."""
    _seconds: bytes
    _owners: array[int]
    _lengths: bytes
    _bars: bytes
    """Packed, one after the other."""

    @classmethod
    def of(cls, start: int, bars: Mapping[Field, Bar]) -> PackedMinute:
        """Bars of the minute that starts at `start` (ms)."""
        fields = sorted(bars)
        packed = [pack_bar(bars[field], field[0]) for field in fields]
        seconds = bytes([(second - start) // BAR_WIDTH for second, _ in fields])
        return cls.joined(start, seconds, [boot for _, boot in fields], packed)

    @classmethod
    def joined(
        cls, start: int, seconds: bytes, boots: Sequence[str], packed: Sequence[bytes]
    ) -> PackedMinute:
        """Packed bars, ordered by their seconds within the minute and their boots. They are not looked at.

        The order makes that minutes of equal bars are equal.

        Raises:
            ValueError: one of them has more than 255 bytes.
        """
        places = {boot: place for place, boot in enumerate(dict.fromkeys(boots))}
        owners = array("B" if len(places) <= _MOST_OF_A_BYTE else "L", [places[boot] for boot in boots])
        return cls(start, tuple(places), seconds, owners, bytes(map(len, packed)), b"".join(packed))

    def __len__(self) -> int:
        """How many bars."""
        return len(self._seconds)

    def __iter__(self) -> Iterator[tuple[int, str, Bar]]:
        """Second (ms), boot and bar of each.

        Raises:
            ValueError: one of them is no bar. Those that `of` has packed are.
        """
        for second, boot, packed in self._entries():
            yield second, boot, unpack_bar(packed, second)

    def counts(self) -> Iterator[tuple[int, str, int]]:
        """Second (ms), boot and number of updates of each."""
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
        return [
            (self.start + second * BAR_WIDTH, self.boots[owner])
            for second, owner in zip(self._seconds, self._owners, strict=True)
        ]

    @property
    def seconds(self) -> list[int]:
        """Those of its bars (ms), ascending."""
        return [self.start + second * BAR_WIDTH for second in self._seconds]

    @property
    def end(self) -> int:
        """Of its last second that has bars (ms)."""
        return self.start + (max(self._seconds) + 1) * BAR_WIDTH

    def next_sequence(self, boot: str) -> int:
        """Greater than all sequences in the bars of other boots than this; 0 if there are none."""
        begins = [end - length for length, end in zip(self._lengths, accumulate(self._lengths), strict=True)]
        if boot in self.boots:
            of_boot = self.boots.index(boot)
            begins = [begin for begin, owner in zip(begins, self._owners, strict=True) if owner != of_boot]
        return 1 + last_sequence(self._bars, begins)

    def get(self, second: int, boot: str) -> Bar:
        """The bar of that second (ms) and boot.

        Raises:
            KeyError: there is none.
        """
        at = (second - self.start) // BAR_WIDTH
        place = self._seconds.find(at)
        while place >= 0:
            if self.boots[self._owners[place]] == boot:
                begin = sum(self._lengths[:place])
                return unpack_bar(self._bars[begin : begin + self._lengths[place]], second)
            place = self._seconds.find(at, place + 1)
        raise KeyError(second, boot)

    def _entries(self) -> Iterator[tuple[int, str, bytes]]:
        ends = accumulate(self._lengths)
        for second, owner, length, end in zip(self._seconds, self._owners, self._lengths, ends, strict=True):
            yield self.start + second * BAR_WIDTH, self.boots[owner], self._bars[end - length : end]


def by_minute(bars: Mapping[Field, Bar]) -> dict[int, PackedMinute]:
    """The bars of each minute, by its start (ms)."""
    minutes: dict[int, dict[Field, Bar]] = {}
    for field, bar in bars.items():
        minutes.setdefault(floor_to(field[0], MINUTE), {})[field] = bar
    return {start: PackedMinute.of(start, of_minute) for start, of_minute in minutes.items()}
