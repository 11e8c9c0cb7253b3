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

    def subscribe(self, subscriptions: Subscriptions) -> bytes:
        """The next request for symbols, which is sent now; empty if nothing may be asked."""
        number = next(self._numbers)
        symbols = subscriptions.ask(number, trio.current_time())
        return self.venue.subscribe(symbols, number, self._clock.now()) if symbols else b""

    def now(self) -> int:
        """The wall clock's time, Unix ms."""
        return self._clock.now()

    def ping(self) -> bytes:
        """The next ping."""
        return self.venue.ping(next(self._numbers), self._clock.now())
