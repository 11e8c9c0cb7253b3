"""Turns under a limit in time: tasks wait until they may send, or may try a connection."""

from __future__ import annotations

import trio

from marketflow.adapters.exchange.venues.venue import Rate
from marketflow.adapters.exchange.websocket.limits import RollingWindow


class Turns:
    """Gives turns in the order of the calls, never more than the rate allows.

    One object limits what exchanges count by address, for all sources of a kind of venue (`Budget`). Another
    one limits the messages of a source. It is kept over reconnects, so that many of them in a row send no
    burst.
    """

    def __init__(self, rate: Rate) -> None:
        self._window = RollingWindow(rate)
        self._first = trio.Lock()
        """Held by the task whose turn is next."""

    async def turn(self) -> None:
        """Wait for a turn, and take it. A cancelled call takes none."""
        async with self._first:
            await trio.sleep_until(self._window.next_at)
            self._window.note(trio.current_time())
