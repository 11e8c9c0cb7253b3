"""The payloads of WebSocket sources: messages with trades that were received together. No I/O."""

from __future__ import annotations

from typing import NamedTuple


class Frames(NamedTuple):
    """Messages with trades, in the order of receipt. Implements the port `Payload`."""

    bodies: tuple[bytes, ...]
    """What the venue's `trades` decodes, one for each message."""
    asked_at: int
    """When trades were first asked for on this connection (Unix ms)."""
    received_at: int
    """Unix ms."""
    received_monotonic: float
    """Seconds of Trio's clock."""

    @property
    def messages(self) -> int:
        """The number of messages; each has one trade at least."""
        return len(self.bodies)
