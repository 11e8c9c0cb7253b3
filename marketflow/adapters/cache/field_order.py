"""The fields of hashes of bars in order. It is kept for the next hash: most have bars of the same seconds."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Final, NamedTuple

from marketflow.app.share.foreign_bars import LATEST
from marketflow.domain.bar_heads import BarHeads
from marketflow.domain.packed_minute import MinuteFields, PackedMinute
from marketflow.domain.periods import MINUTE, SECOND

_NAMES: Final = re.compile(rb"(?:(?:0|[1-9][0-9]{0,11}):[!-9;-~]*\n)+")
"""Fields, one in each line."""
_SECONDS: Final = MINUTE // SECOND
SPARE: Final = 1_000
"""So many fields may be kept that the hash that was read last does not have."""


class _Name(NamedTuple):
    """A field, by what it is ordered."""

    second: int
    """Not ms, as in its name."""
    boot: str
    name: bytes


class _Minute(NamedTuple):
    """The fields of a minute."""

    start: int
    """In ms."""
    first: int
    """The place of the first field, and of the one after the last."""
    last: int
    fields: MinuteFields


class FieldOrder:
    """The fields of hashes that were read lately, by minute, second and boot."""

    def __init__(self) -> None:
        self._fields: list[_Name] = []
        self._names: list[bytes] = []
        self._minutes: list[_Minute] = []

    def __len__(self) -> int:
        """How many fields are kept."""
        return len(self._fields)

    def minutes(self, values: Mapping[bytes, bytes]) -> dict[int, PackedMinute]:
        """The bars of a hash by minute. No more than their heads is looked at.

        Raises:
            ValueError: a field is not of our form, or a bar is of another form, or cannot be a bar.
        """
        if not values:
            return {}
        found = list(map(values.get, self._names))
        packed = list(filter(None, found))
        if len(packed) != len(values):
            self._learn(values)
            found = list(map(values.get, self._names))
            packed = list(filter(None, found))
            if len(packed) != len(values):
                raise ValueError("a field without a value")
        heads = BarHeads(packed)
        minutes: dict[int, PackedMinute] = {}
        begin = 0
        for start, first, last, fields in self._minutes:
            end, of_minute = begin + last - first, fields
            if len(packed) != len(found):
                there = [value is not None for value in found[first:last]]
                end = begin + sum(there)
                if begin == end:
                    continue
                if not all(there):
                    of_minute = fields.where(there)
            part = heads.part(begin, end)
            minutes[start] = PackedMinute(start, of_minute, part, b"".join(packed[begin:end]))
            begin = end
        return minutes

    def _learn(self, names: Iterable[bytes]) -> None:
        """Put these fields in order, together with those that are known.

        If few of these are in use, they are forgotten.

        Raises:
            ValueError: one of them is not of our form.
        """
        wanted = set(names)
        fields = _read(wanted.difference(self._names))
        if len(self) + len(fields) <= 2 * len(wanted) + SPARE:
            fields += self._fields
        else:
            fields = _read(wanted)
        fields.sort()
        self._fields, self._names = fields, [field.name for field in fields]
        self._minutes = list(_by_minute(fields))


def _read(names: Iterable[bytes]) -> list[_Name]:
    """Raises ValueError: one of them is not of our form."""
    ordered = list(names)
    if not ordered:
        return []
    joined = b"\n".join([*ordered, b""])
    if not _NAMES.fullmatch(joined) or joined.count(b"\n") != len(ordered):
        raise ValueError("a field of another form")
    parts = joined[:-1].decode().replace(":", "\n").split("\n")
    fields = list(map(_Name, map(int, parts[0::2]), parts[1::2], ordered))
    if max(field.second for field in fields) * SECOND > LATEST:
        raise ValueError("a field of a time that is too late")
    return fields


def _by_minute(fields: list[_Name]) -> Iterable[_Minute]:
    first = 0
    while first < len(fields):
        minute = fields[first].second // _SECONDS
        last = bisect_left(fields, _SECONDS * (minute + 1), first, key=attrgetter("second"))
        within = fields[first:last]
        seconds = bytes([field.second - _SECONDS * minute for field in within])
        yield _Minute(
            minute * MINUTE, first, last, MinuteFields.of(seconds, [field.boot for field in within])
        )
        first = last
