"""Intervals whose rows PostgreSQL does not have as they are now, and the folds of the old ones."""

from __future__ import annotations

from collections import defaultdict

from marketflow.app.share.folds import Folds
from marketflow.app.share.outbox import Outbox
from marketflow.domain.prices import Pair


class Unwritten:
    """An outbox for each pair. Intervals are named by their end (ms)."""

    def __init__(self) -> None:
        self.outboxes: dict[Pair, Outbox[int]] = defaultdict(Outbox)
        self.folds = Folds()
        """What is left of the bars of unwritten intervals that are older than bars are kept."""

    def mark(self, pair: Pair, end: int) -> None:
        """Its row has to be written: a bar of that interval has changed, or the row is missing."""
        self.outboxes[pair].add(end)

    def has(self, pair: Pair, end: int) -> bool:
        """Whether its row has to be written."""
        return end in self.outboxes[pair]

    def acknowledge(self, pair: Pair, end: int, version: int) -> None:
        """The row was written. Its folds are needed no more, unless it has changed since."""
        outbox = self.outboxes[pair]
        outbox.acknowledge((end,), version)
        if end not in outbox:
            self.folds.drop(pair, end)
