"""The messages that we send on a connection, each with a number of its own."""

from __future__ import annotations

from itertools import count

import trio

from marketflow.adapters.exchange.venues.venue import Venue
from marketflow.adapters.exchange.websocket.subscriptions import Subscriptions
from marketflow.app.ports import Clock


class Requests:
    """Words requests as the venue wants them."""

    def __init__(self, venue: Venue, clock: Clock) -> None:
        """`venue`: as this connection uses it."""
        self.venue = venue
        self._clock = clock
        self._numbers = count(1)
        self.asked_at: int | None = None
        """When trades were first asked for (Unix ms)."""

    def subscribe(self, subscriptions: Subscriptions) -> bytes:
        """The next request for symbols, which is sent now; empty if nothing may be asked."""
        number, now = next(self._numbers), self._clock.now()
        symbols = subscriptions.ask(number, trio.current_time())
        if not symbols:
            return b""
        self.asked_at = self.asked_at or now
        return self.venue.subscribe(symbols, number, now)

    def now(self) -> int:
        """The wall clock's time, Unix ms."""
        return self._clock.now()

    def ping(self) -> bytes:
        """The next ping."""
        return self.venue.ping(next(self._numbers), self._clock.now())
