"""What a share says of itself in numbers: the port that the share fills, and health and measurements read.

No method waits. What is read without an await in between adds up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from marketflow.app.interface import Counters, WriterFigures


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

    def gaps(self) -> Mapping[str, int]:
        """By exchange how many trades have never come, where their ids tell."""
        ...

    def writers(self) -> WriterFigures:
        """The numbers of the writers."""
        ...
