"""The one-second bars of a minute in few bytes: a tenth of what they take as objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from struct import Struct
from typing import Final

import msgspec

from marketflow.domain.bars import BAR_WIDTH, Bar, merged
from marketflow.domain.packed_bars import count_of, pack_bar, unpack_bar

_ENTRY: Final = Struct("<BBH")
"""For each bar its second within the minute, the place of its boot, and where its bytes end."""


class PackedMinute(msgspec.Struct, frozen=True, gc=False):
    """The bars of one exchange, symbol and minute, of every boot."""

    start: int
    """Of the minute, ms."""
    whole: Bar
    """All of them merged, since most questions are about whole minutes."""
    _boots: tuple[str, ...]
    _index: bytes
    """An entry for each bar."""
    _bars: bytes
    """The bars in form 2, one after the other."""

    @classmethod
    def of(cls, start: int, bars: Mapping[tuple[int, str], Bar]) -> PackedMinute:
        """Bars by second (ms) and boot, one or more, of the minute that starts at `start` (ms)."""
        boots = tuple(dict.fromkeys(boot for _, boot in bars))
        index, packed, end = bytearray(), [], 0
        for (second, boot), bar in bars.items():
            packed.append(pack_bar(bar, second))
            end += len(packed[-1])
            index += _ENTRY.pack((second - start) // BAR_WIDTH, boots.index(boot), end)
        whole = merged(bars.values())
        if whole is None:
            raise ValueError("a packed minute has at least one bar")
        return cls(start, whole, boots, bytes(index), b"".join(packed))

    def __iter__(self) -> Iterator[tuple[int, str, Bar]]:
        """Second (ms), boot and bar of each."""
        for second, boot, packed in self._entries():
            yield second, boot, unpack_bar(packed, second)

    def counts(self) -> Iterator[tuple[int, str, int]]:
        """Second (ms), boot and number of updates of each."""
        for second, boot, packed in self._entries():
            yield second, boot, count_of(packed)

    def get(self, second: int, boot: str) -> Bar:
        """The bar of that second (ms) and boot.

        Raises:
            KeyError: there is none.
        """
        if boot not in self._boots:
            raise KeyError(boot)
        name = bytes(((second - self.start) // BAR_WIDTH, self._boots.index(boot)))
        place = self._index.find(name)
        while place % _ENTRY.size and place >= 0:  # the same bytes may stand across two entries
            place = self._index.find(name, place + 1)
        if place < 0:
            raise KeyError(second)
        begin = 0 if place == 0 else _ENTRY.unpack_from(self._index, place - _ENTRY.size)[2]
        end = _ENTRY.unpack_from(self._index, place)[2]
        return unpack_bar(self._bars[begin:end], second)

    def _entries(self) -> Iterator[tuple[int, str, bytes]]:
        begin = 0
        for second, boot, end in _ENTRY.iter_unpack(self._index):
            yield self.start + second * BAR_WIDTH, self._boots[boot], self._bars[begin:end]
            begin = end
