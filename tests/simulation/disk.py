"""The simulated disk of the spool, and the spool of one process on it.

The disk outlives the processes. It is full, cannot be read, hangs, or has a damaged file. A process may be
killed at each step of a save.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal

import trio

from marketflow.app.share.spooling import SpooledBar, SpoolFailed

LOAD_SECONDS: Final = 5.0
"""How long a start waits for the disk, as with the real spool."""

DiskWay = Literal["up", "full", "unreadable", "hanging"]


class SimulatedDisk:
    """Files by their number. Each save makes a new one."""

    def __init__(self) -> None:
        self.way: DiskWay = "up"
        self.files: dict[int, Sequence[SpooledBar]] = {}
        """Whole files."""
        self.damaged: set[int] = set()
        """Files that nobody can read any more. They stay for ever."""
        self.halves: set[int] = set()
        """Files that are being written, or were when their process was killed. Nobody reads them."""
        self._numbers = 0
        self._changed = trio.Event()

    def turn(self, way: DiskWay) -> None:
        """Change how it behaves."""
        self.way = way
        self._changed.set()
        self._changed = trio.Event()

    async def wait_answering(self) -> None:
        """Wait as long as it hangs."""
        while self.way == "hanging":
            await self._changed.wait()

    def number(self) -> int:
        """The number of a new file."""
        self._numbers += 1
        return self._numbers

    def readable(self) -> list[int]:
        """The files that are not damaged."""
        return [number for number in self.files if number not in self.damaged]

    def bars(self) -> Iterator[SpooledBar]:
        """All bars that a start could read."""
        for number in self.readable():
            yield from self.files[number]


class SimulatedSpool:
    """Fills the port Spool for one process.

    It removes only what it has read or written itself, as the real one does.
    """

    def __init__(self, disk: SimulatedDisk, is_dead: Callable[[], bool]) -> None:
        """`is_dead`: whether the process was killed, so that nothing it does has an effect."""
        self._disk = disk
        self._is_dead = is_dead
        self._known: list[int] = []
        self.saving = False
        """Whether bars are being saved just now."""
        self.save_began = math.inf
        """When bars were saved last."""
        self.failed = False
        """Whether bars could not be saved."""

    @property
    def known(self) -> Sequence[int]:
        """The files whose bars the process has."""
        return self._known

    @property
    def unread(self) -> list[int]:
        """Files that could be read, and which this process has not read."""
        return [number for number in self._disk.readable() if number not in self._known]

    async def load(self) -> Sequence[SpooledBar]:
        """See the port."""
        with trio.move_on_after(LOAD_SECONDS) as waiting:
            await self._disk.wait_answering()
        if waiting.cancelled_caught or self._disk.way == "unreadable":
            return []
        await trio.lowlevel.checkpoint()
        read = self._disk.readable()
        bars = [bar for number in read for bar in self._disk.files[number]]
        await trio.lowlevel.checkpoint()
        self._known = read
        return bars

    async def save(self, bars: Sequence[SpooledBar], within: float = LOAD_SECONDS) -> None:
        """See the port."""
        ends = trio.current_time() + within
        before, self._known = self._known, []
        if bars:
            self.saving, self.save_began = True, trio.current_time()
            try:
                with trio.fail_at(ends):
                    self._known = [await self._write(bars)]
            except (OSError, trio.TooSlowError) as error:
                self._known, self.failed = before, True
                raise SpoolFailed("the simulated disk", str(error) or "no answer in time") from error
            finally:
                self.saving = False
        with trio.move_on_at(ends):
            for number in before:
                await self._disk.wait_answering()
                await trio.lowlevel.checkpoint()
                if not self._is_dead():
                    self._disk.files.pop(number, None)

    async def _write(self, bars: Sequence[SpooledBar]) -> int:
        """Write beside, then rename: whole or not at all."""
        number = self._disk.number()
        await self._disk.wait_answering()
        await trio.lowlevel.checkpoint()
        if self._disk.way == "full":
            raise OSError(28, "No space left on device")
        if not self._is_dead():
            self._disk.halves.add(number)
        await trio.lowlevel.checkpoint()
        await self._disk.wait_answering()
        if not self._is_dead():
            self._disk.halves.discard(number)
            self._disk.files[number] = list(bars)
        await trio.lowlevel.checkpoint()
        return number
