"""The sequences of this boot: the order in which its updates were received."""

from __future__ import annotations

from typing import Final

import trio

MOST: Final = 2**56
"""Sequences are less than that: members in the window have room for so many digits. By the clock they get
there in the year 4253."""
FOLLOWED: Final = MOST // 2
"""Sequences of other boots are followed up to here, which the clock reaches in the year 3111. Beyond it ours
would come near `MOST`, and the next boot could not take our bars for those of a boot."""


class Sequences:
    """Numbers updates. The first number comes from the clock, so that sequences grow from boot to boot.

    A clock that is behind at the start gives numbers that earlier boots have used. So once the bars of other
    boots are known, this boot goes on behind the greatest sequence in them.
    """

    def __init__(self) -> None:
        self.next = 0
        """Greater than the sequences of all updates."""
        self.first = 0
        """Not greater than the sequences of any update."""
        self._grown = trio.lowlevel.ParkingLot()

    def begin(self, first: int) -> None:
        """The next update gets the number `first`."""
        self.first = self.next = first

    def grow_to(self, end: int) -> None:
        """All numbers before `end` are used."""
        self.next = end
        if self._grown:
            self._grown.unpark_all()

    def follow(self, others: int, *, renumber: bool) -> int:
        """Go on behind updates of other boots: their sequences are less than `others`, at most `FOLLOWED`.

        With `renumber` the updates that have a number already are to get a greater one. Returns how much
        greater; 0 if they keep theirs.
        """
        if not renumber:
            self.grow_to(max(self.next, others))
            return 0
        by = max(0, others - self.first)
        self.first += by
        self.grow_to(self.next + by)
        return by

    async def wait_beyond(self, sequence: int) -> int:
        """Wait until the next number is greater than `sequence`; returns it."""
        while self.next <= sequence:
            await self._grown.park()
        return self.next
