"""The framing of lines: cuts received bytes into whole lines. No I/O."""

from __future__ import annotations

from typing import Final, NamedTuple

LINE_LIMIT: Final = 65_536
"""The most bytes in a line, without its newline and a carriage return before it."""

_BLANK: Final = b" \t\r\n"


class Lines(NamedTuple):
    """Whole lines that were received together. Implements the port `Payload`."""

    lines: bytes
    """Zero or more lines, each ended by a newline."""
    oversized: int
    """The number of lines that were discarded because they were too long."""
    received_at: int
    """Unix ms."""
    received_monotonic: float
    """Seconds of Trio's clock."""

    @property
    def messages(self) -> int:
        """The number of lines. Blank lines do not count."""
        return self.oversized + sum(bool(line.strip(_BLANK)) for line in self.lines.split(b"\n"))


class LineFramer:
    """Cuts the bytes of one connection into lines. The bytes may be split anywhere.

    It keeps at most `limit` bytes and a carriage return. A line that is too long is counted once, as soon as
    that is known, and none of its bytes is passed on. No other line is lost.
    """

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._rest = bytearray()
        """The beginning of a line whose end was not received yet."""
        self._skipping = False
        """Whether that line is too long. Then it was counted already, and the rest of it is skipped."""

    def push(self, data: bytes) -> tuple[bytes, int]:
        """Take the next bytes, of any size.

        Returns the lines that are whole now, each ended by a newline, and the number of lines that were
        discarded because they are too long.
        """
        end = data.rfind(b"\n") + 1
        if not end:
            return b"", self._keep(data)
        start = data.find(b"\n") + 1 if self._skipping else 0
        oversized = 0
        lines = b"".join((self._rest, memoryview(data)[start:end]))
        self._skipping = False
        self._rest.clear()
        if self._may_have_oversized(lines):
            lines, oversized = self._without_oversized(lines)
        return lines, oversized + self._keep(data[end:])

    def finish(self) -> tuple[bytes, int]:
        """Take the end of the connection. A last line without a newline counts as a line.

        Returns the same as `push`. Afterwards the framer can be used for a new connection.
        """
        blank = not self._rest.strip(_BLANK)
        lines, oversized = self.push(b"\n")
        return (b"", oversized) if blank else (lines, oversized)

    def _keep(self, data: bytes) -> int:
        """Add bytes without a newline to the unfinished line; returns 1 if that makes it too long."""
        if self._skipping:
            return 0
        # Checked before it is copied, since `data` may be of any size.
        size = len(self._rest) + len(data)
        last = data[-1:] or self._rest[-1:]
        # A carriage return at the end does not count if a newline follows.
        if size - (last == b"\r") > self._limit:
            self._rest.clear()
            self._skipping = True
            return 1
        self._rest += data
        return 0

    def _may_have_oversized(self, lines: bytes) -> bool:
        """A quick check: it looks only for the last newline in each `limit` bytes."""
        begin = 0
        while len(lines) - begin > self._limit + 1:
            newline = lines.rfind(b"\n", begin, begin + self._limit + 1)
            if newline < 0:
                return True
            begin = newline + 1
        return False

    def _without_oversized(self, lines: bytes) -> tuple[bytes, int]:
        """The lines that are not too long, and the number of those that are."""
        all_lines = lines.split(b"\n")[:-1]
        good = [line for line in all_lines if len(line) - line.endswith(b"\r") <= self._limit]
        oversized = len(all_lines) - len(good)
        return (b"".join(line + b"\n" for line in good), oversized) if oversized else (lines, 0)
