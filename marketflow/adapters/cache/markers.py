"""The markers of one boot's writes: each write sets one, and returns the one before.

If that is not the marker of our last acknowledged write, data may be missing: Redis was emptied, came back
with an older state, or executed a write whose answer was lost.
"""

from __future__ import annotations

from typing import Final

MARKER_TTL: Final = 3_600
"""Seconds after the last write."""


class Markers:
    """Makes markers, and compares those that are found."""

    def __init__(self, boot: bytes) -> None:
        self._boot = boot
        self._writes = 0
        self._acknowledged: bytes | None = b""
        """The marker of the last write that was."""
        self.intact = True
        """Whether each write since the last report has found the marker of the one before."""

    def next(self) -> bytes:
        """The marker of the next write: the boot, and the number of the write."""
        self._writes += 1
        return b"%b:%d" % (self._boot, self._writes)

    def acknowledged(self, marker: bytes, found: bytes | None) -> None:
        """A write has set this marker, and has found that one."""
        self.intact = self.intact and found == self._acknowledged
        self._acknowledged = marker

    def is_anothers(self, found: bytes | None) -> bool:
        """Whether another boot has written the marker."""
        return found is not None and not found.startswith(self._boot + b":")

    def report(self) -> bool:
        """Whether each write since the last report has found the marker of the one before."""
        intact, self.intact = self.intact, True
        return intact
