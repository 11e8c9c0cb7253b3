"""The count of updates that have entered. Parts that wait for new ones wait for it to grow."""

from __future__ import annotations

import trio


class Arrivals:
    """Counts updates. The count does not begin at 0: it grows from boot to boot."""

    def __init__(self) -> None:
        self.next = 0
        """Greater than the numbers of all updates that have entered."""
        self._waiting = trio.lowlevel.ParkingLot()

    def begin(self, first: int) -> None:
        """The next update gets the number `first`."""
        self.next = first

    def grow_to(self, end: int) -> None:
        """All numbers before `end` are used."""
        self.next = end
        self.wake()

    def wake(self) -> None:
        """Wake the tasks that wait for updates, whether any have entered or not."""
        if self._waiting:
            self._waiting.unpark_all()

    async def wait(self) -> None:
        """Wait until updates enter, or `wake` is called."""
        await self._waiting.park()

    async def wait_beyond(self, number: int) -> int:
        """Wait until the next number is greater than `number`; returns it."""
        while self.next <= number:
            await self.wait()
        return self.next
