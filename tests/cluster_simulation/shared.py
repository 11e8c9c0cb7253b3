"""An exchange whose connections all carry the same lines, and that notes what it has sent."""

from __future__ import annotations

import json
from typing import Any

from tests.simulation.exchanges import LAGS, SimulatedExchange

AGAIN = 0.3
"""How often a line of the send before is sent again: two updates that nothing tells apart."""


class SharedExchange(SimulatedExchange):
    """Sends good lines only, each with a price of its own."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.lines_sent: list[tuple[str, int, float]] = []
        """(symbol, timestamp, price) of all lines, whether somebody was connected or not."""
        self.owed_from: int | None = None
        """The number of those that were sent before a node had it for the first time."""
        self._number = 0
        self._last = self._new_key()

    def _new_key(self) -> tuple[str, int, float]:
        self._number += 1
        return self._rng.choice(self._symbols), self._true_time() - self._rng.choice(LAGS), self._number / 8

    def send(self) -> None:
        """Send some lines to all connections."""
        keys = [self._new_key() for _ in range(self._rng.randint(1, 3))]
        if self._rng.random() < AGAIN:
            keys.append(self._last)
        self._last = keys[0]
        lines = [
            json.dumps({"symbol": symbol, "price": price, "timestamp": time}).encode() + b"\n"
            for symbol, time, price in keys
        ]
        self.lines_sent += keys
        for connection in list(self._connections):
            connection.send(b"".join(lines))
        if self._connections:
            self.sent.set()

    def drop(self, *, broken: bool) -> None:
        """End all connections, with no part of a line."""
        for connection in self._connections:
            connection.end(broken=broken)
        self._connections.clear()
