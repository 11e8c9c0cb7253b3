"""The sequences of this boot's updates: for each exchange the order in which they were received."""

from __future__ import annotations

from collections import Counter
from typing import Final

PLACES: Final = 4 * 36**2
"""How many sequences each chunk has. A TCP chunk has 256 KiB at most, and fewer lines that can be updates."""
PER_MS: Final = 2 * PLACES
"""A boot's first sequence is the clock's ms times this. So the next boot's are greater, unless an exchange
sends more than two chunks in each ms, for as long as the boot lives."""
MOST: Final = 2**56
"""Sequences are less than that: members in the window have room for so many digits. By the clock they get
there in the year 2190."""
FOLLOWED: Final = MOST // 2
"""Sequences of other boots are followed up to here, which the clock reaches in the year 2080. Beyond it ours
would come near `MOST`, and the next boot could not take our bars for those of a boot."""


class Sequences:
    """Numbers the updates of each exchange. They grow from chunk to chunk, and from boot to boot.

    The update at a place of a chunk has the sequence `first + number * PLACES + place`, where `first` comes
    from the clock at the boot's begin, and the chunks of the exchange are numbered from 0. So the same chunk
    taken in again as that boot gives the same sequences; other exchanges have no influence. There are two
    exceptions: after a chunk of another kind of source with more updates than `PLACES`, and behind the
    sequences of other boots. Then they are as small as they can be and still grow.

    A clock that is behind at the start gives numbers that earlier boots have used. So once the bars of other
    boots are known, this boot goes on behind the greatest sequence in them.
    """

    def __init__(self) -> None:
        self.first = 0
        """What the first sequence of an exchange would be if there were no other boots."""
        self._behind: Counter[str] = Counter()
        """By exchange, by how much its first sequence is greater than `first`, to be behind other boots'."""
        self._next: Counter[str] = Counter()
        """By exchange, greater than the sequences of its updates so far."""

    def begin(self, now: int) -> None:
        """The boot begins at that time (Unix ms)."""
        self.first = now * PER_MS

    def first_of(self, exchange: str) -> int:
        """Not greater than the sequences of any update of the exchange."""
        return self.first + self._behind[exchange]

    def take(self, exchange: str, number: int, count: int) -> int:
        """The sequence of the first of `count` updates of the exchange's next chunk, given its number."""
        first = max(self._next[exchange], self.first_of(exchange) + number * PLACES)
        self._next[exchange] = first + count
        return first

    def follow(self, exchange: str, others: int, *, renumber: bool) -> int:
        """Go on behind updates of other boots: their sequences are less than `others`, at most `FOLLOWED`.

        With `renumber` the updates that have a number already are to get a greater one. Returns how much
        greater; 0 if they keep theirs.
        """
        if not renumber:
            self._next[exchange] = max(self._next[exchange], others)
            return 0
        by = max(0, others - self.first_of(exchange))
        self._behind[exchange] += by
        self._next[exchange] += by
        return by
