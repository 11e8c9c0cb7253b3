"""What all clients of the live stream share: the events, the turns in which they are sent, and the end."""

from __future__ import annotations

import trio

from marketflow.app.stream.newest_events import NewestEvents
from marketflow.app.stream.turns import Turns


class Delivery:
    """One for all clients."""

    def __init__(self, newest: NewestEvents, *, heartbeat: float) -> None:
        """`heartbeat`: seconds without an event after which a client gets a heartbeat."""
        self.newest = newest
        self.heartbeat = heartbeat
        self.ended = trio.Event()
        self.turns = Turns(self.ended)

    def end(self) -> None:
        """End the streams of all clients, at once."""
        self.ended.set()
        self.newest.end()
