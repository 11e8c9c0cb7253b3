"""Who of many clients sends next."""

from __future__ import annotations

import math
from typing import Final

import trio

SEND_SECONDS: Final = 0.000_5
"""Seconds from one send to the next: several times what one takes, so that most of the thread stays free."""

MOST_BEHIND: Final = 0.002
"""Seconds' worth of sends that may follow each other closely, to make up for late wake-ups."""

EVENT_SECONDS: Final = 0.000_002
"""Seconds more for each event in it."""


class Turns:
    """Who sends next: sends follow each other at a distance, whoever makes them.

    In each round of Trio's scheduler there is one at most: on a busy machine there are fewer of them, and the
    way of an update is never behind a row of them.
    """

    def __init__(self, ended: trio.Event) -> None:
        """After `ended` nobody waits any more."""
        self._ended = ended
        self._gate = trio.Lock()
        """Whoever has it is the next; the others queue for it."""
        self._free_at = -math.inf

    async def wait(self) -> None:
        """Wait for one's turn."""
        async with self._gate:
            if not self._ended.is_set():
                with trio.move_on_at(self._free_at):
                    await self._ended.wait()
            # A wake-up is late by a ms or so. What was lost by that may be made up for, no more.
            behind = trio.current_time() - MOST_BEHIND
            self._free_at = max(self._free_at, behind) + SEND_SECONDS

    def charge(self, events: int) -> None:
        """So many events go out in the turn that has come."""
        self._free_at += events * EVENT_SECONDS
