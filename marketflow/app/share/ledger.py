"""The conservation counters of an exchange: where every received line went."""

from __future__ import annotations

from collections import Counter
from typing import Final

import attrs

from marketflow.app.ports import Batch

OVERFLOW: Final = "overflow"
"""Dropped to keep memory bounded while Redis is away."""
SHUTDOWN: Final = "shutdown"
"""Dropped at a stop, with Redis away."""
FENCED: Final = "fenced"
"""In a cluster: dropped since another node has taken the exchange. Its bars do not have them."""


@attrs.define
class Ledger:
    """Counters in updates, since the boot.

    At every moment received = accepted + rejected, and accepted = cached + expired + dropped + pending.
    Each method keeps both equations: they hold for every reader that does not await in between.
    """

    received: int = 0
    accepted: int = 0
    rejected: Counter[str] = attrs.field(factory=Counter)
    """By reason."""
    cached: int = 0
    """Acknowledged by Redis."""
    expired: int = 0
    """Too old for the window before they could be written. The bars have them."""
    dropped: Counter[str] = attrs.field(factory=Counter)
    """By reason. The bars have them."""
    pending: int = 0
    """Not in Redis yet. Those in flight count."""
    volumes_ignored: int = 0
    """Accepted updates that told a volume which does not count. They are in no equation."""

    def enter(self, batch: Batch) -> None:
        """Count a batch that enters the book."""
        accepted = batch.accepted
        self.received += batch.received
        self.accepted += accepted
        if batch.rejected:
            self.rejected.update(batch.rejected)
        self.pending += accepted
        self.volumes_ignored += batch.ignored_volumes

    def cache(self, count: int) -> None:
        """Pending updates were acknowledged."""
        self.pending -= count
        self.cached += count

    def expire(self, count: int) -> None:
        """Pending updates became too old."""
        self.pending -= count
        self.expired += count

    def drop(self, count: int, reason: str) -> None:
        """Pending updates were thrown away."""
        if count:
            self.pending -= count
            self.dropped[reason] += count

    @property
    def settled(self) -> int:
        """Accepted updates that are pending no more: cached, expired or dropped."""
        return self.accepted - self.pending

    def add(self, other: Ledger) -> None:
        """Add another's counts: the sum over exchanges."""
        self.received += other.received
        self.accepted += other.accepted
        self.rejected.update(other.rejected)
        self.cached += other.cached
        self.expired += other.expired
        self.dropped.update(other.dropped)
        self.pending += other.pending
