"""The stream of an exchange's changed bars: each write with bars appends one entry to it.

```
XADD changes:{exchange1} MAXLEN ~ 1000 <epoch>-<number>  term <term>  <symbol> ""  <second>:<term> <bar> …
```
A place is made of the term's epoch and the number of the change, not of the server's clock. So places grow
even if that clock is set back and the store was emptied. A bar belongs to the symbol before it; its field and
value are those of the hash.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from marketflow.adapters.cache import bar_fields, members
from marketflow.adapters.cache.foreign import Ignored
from marketflow.adapters.cache.keys import changes_key
from marketflow.app.ports import Change, Field, Term
from marketflow.domain.bars import Bar
from marketflow.domain.prices import Pair

MOST_CHANGES: Final = 1_000
"""Entries that are kept: those of at least 25 s. A node that falls behind by more reads all bars again."""
MOST_BYTES: Final = 4_194_304
"""Bytes of the entries that are kept. Restoring a window of hundreds of pairs makes entries of 400 KB."""
_TERM: Final = b"term"
_NO_VALUE: Final = members.bulk(b"")


class PackedChange(msgspec.Struct, frozen=True):
    """What a change has of symbols and bars, as arguments of a command, and how many arguments they are."""

    key: bytes
    """The stream."""
    data: bytes
    arguments: int


def pack_change(items: Mapping[Pair, Sequence[bytes]]) -> PackedChange:
    """The bars of each pair of one exchange, as `bar_fields.pack_items` has packed them."""
    pieces: list[bytes] = []
    exchange, _ = next(iter(items))
    for (_, symbol), of_pair in items.items():
        pieces += members.bulk(symbol.encode()), _NO_VALUE, *of_pair
    arguments = 2 * (len(items) + sum(map(len, items.values())))
    return PackedChange(changes_key(exchange), b"".join(pieces), arguments)


class ChangeLog:
    """Appends the changes of one term."""

    def __init__(self, term: Term) -> None:
        self._epoch = term.epoch
        self._term = members.bulk(_TERM) + members.bulk(term.id.encode())
        self._number = 0
        self._sizes: deque[int] = deque()
        """Of the newest entries, as many as are kept."""
        self._bytes = 0

    def append(self, change: PackedChange) -> bytes:
        """The command that appends a change.

        Each call makes the next number. So a write that fails leaves a hole, and mirrors read all bars again:
        if only its answer was lost, they may have seen it, and the same place must never have two changes.
        """
        self._number += 1
        kept, place = b"%d" % self._kept(len(change.data)), b"%d-%d" % (self._epoch, self._number)
        head = b"".join(map(members.bulk, (b"XADD", change.key, b"MAXLEN", b"~", kept, place)))
        return b"*%d\r\n%b%b%b" % (8 + change.arguments, head, self._term, change.data)

    def _kept(self, size: int) -> int:
        """How many entries are kept, the newest of that size included."""
        self._sizes.append(size)
        self._bytes += size
        if len(self._sizes) > MOST_CHANGES:
            self._bytes -= self._sizes.popleft()
        full = False
        while self._bytes > MOST_BYTES and len(self._sizes) > 1:
            self._bytes -= self._sizes.popleft()
            full = True
        return len(self._sizes) if full else MOST_CHANGES


def read_changes(exchange: str, reply: Iterable[Sequence[Any]], ignored: Ignored) -> Sequence[Change]:
    """The changes in entries of a stream. Those that are not of our form are left out."""
    changes: list[Change] = []
    for place, arguments in reply:
        try:
            changes.append(_read_change(exchange, place.decode(), arguments, ignored))
        except ValueError as error:
            ignored.add((exchange, ""), place, error)
    return changes


def _read_change(exchange: str, place: str, arguments: Sequence[bytes], ignored: Ignored) -> Change:
    names = iter(members.in_twos(arguments))
    name, term = next(names, (b"", b""))
    if name != _TERM:
        raise ValueError(place)
    bars: list[tuple[Pair, Field, Bar]] = []
    pair = exchange, ""
    held: list[tuple[bytes, bytes]] = []

    def read() -> None:
        found = bar_fields.read_bars(pair, held, ignored)
        if len(found) < len(held):
            raise ValueError(place)
        bars.extend((pair, field, bar) for field, bar in found.items())
        held.clear()

    for name, value in names:
        if b":" in name:
            held.append((name, value))
        else:
            read()
            pair = exchange, name.decode("ascii")
    read()
    return Change(place, term.decode("ascii"), bars)
