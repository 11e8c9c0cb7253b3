"""What a share says of itself in numbers: the port that the share fills, and health and measurements read.

No method waits. What is read without an await in between adds up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import attrs

from marketflow.app.instruments.histogram import Distribution
from marketflow.app.interface import Counters


@attrs.frozen
class WriterFigures:
    """The counters and durations of a share's writers since the boot, and the limits of its buffers."""

    pending_limits: Mapping[str, int]
    """The most pending updates, by exchange."""
    latency_seconds: Distribution
    """The time from the receipt of each cached update until Redis acknowledged it."""
    flush_seconds: Distribution
    """How long each acknowledged write to Redis took."""
    aggregates_written: int
    aggregates_pending: int
    """Rows of closed intervals that are not up to date in PostgreSQL."""
    aggregates_refused: int
    """Those of them that PostgreSQL has refused, although it answers."""


class Figures(Protocol):
    """The numbers of a share."""

    def counters(self) -> Mapping[str, Counters]:
        """The counters of received lines, by exchange."""
        ...

    def total(self) -> Counters:
        """The sum of the counters over all exchanges."""
        ...

    def last_accepted(self, exchange: str) -> float | None:
        """When its last update was accepted (seconds of Trio's clock); None before the first."""
        ...

    def writers(self) -> WriterFigures:
        """The numbers of the writers."""
        ...
