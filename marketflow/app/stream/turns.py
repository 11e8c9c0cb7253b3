"""Decides which of many clients sends next."""

from __future__ import annotations

import math
from typing import Final

import trio

SEND_SECONDS: Final = 0.000_5
"""Seconds from one send to the next. A send takes a fraction of that, so most of the thread is free."""

MOST_BEHIND: Final = 0.002
"""The most seconds of delay that later sends catch up with, since wake-ups are late."""

EVENT_SECONDS: Final = 0.000_002
"""Seconds by which each event in a send delays the next send."""


class Turns:
    """Keeps a minimum time between the sends of all clients.

    There is at most one send in each round of Trio's scheduler. So a busy machine sends less often, and an
    update on its way to Redis never waits behind many sends.
    """

    def __init__(self, ended: trio.Event) -> None:
        """Once `ended` is set no client waits any more."""
        self._ended = ended
        self._gate = trio.Lock()
        """The client that holds it is the next; the others queue for it."""
        self._free_at = -math.inf

    async def wait(self) -> None:
        """Wait until it is the caller's turn to send."""
        async with self._gate:
            if not self._ended.is_set():
                with trio.move_on_at(self._free_at):
                    await self._ended.wait()
            # Wake-ups are late by about a ms. Catch up with that much, but not with a longer pause.
            behind = trio.current_time() - MOST_BEHIND
            self._free_at = max(self._free_at, behind) + SEND_SECONDS

    def charge(self, events: int) -> None:
        """Note how many events are sent in this turn: the next one is later for each of them."""
        self._free_at += events * EVENT_SECONDS
