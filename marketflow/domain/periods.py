"""Durations, boundaries and spans. Times are integers in Unix ms, UTC; spans are [start, end)."""

from __future__ import annotations

import re
from typing import Final

import attrs

SECOND: Final = 1_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

LONGEST_PERIOD: Final = 30 * DAY
CANDLE_INTERVALS: Final = {
    "1s": SECOND,
    "5s": 5 * SECOND,
    "15s": 15 * SECOND,
    "1m": MINUTE,
    "5m": 5 * MINUTE,
    "15m": 15 * MINUTE,
    "1h": HOUR,
    "1d": DAY,
}

PERIOD_UNITS: Final = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}
PERIOD_DIGITS: Final = 9
"""The most digits before the unit, so that the conversion is never slow."""

# ASCII digits only.
_PERIOD: Final = re.compile(rf"([0-9]{{1,{PERIOD_DIGITS}}})([{''.join(PERIOD_UNITS)}])")


class BadPeriod(ValueError):
    """The text is not a valid period."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"{text!r} is not a period: a whole number and s, m, h or d, from 1s to {LONGEST_PERIOD // DAY}d"
        )
        self.text = text


def floor_to(timestamp: int, interval: int) -> int:
    """The last boundary of `interval` at or before `timestamp`."""
    return timestamp - timestamp % interval


def ceil_to(timestamp: int, interval: int) -> int:
    """The first boundary of `interval` at or after `timestamp`."""
    return -(-timestamp // interval) * interval


def parse_period(text: str) -> int:
    """Parse a text like `30s` or `5m`, to ms.

    Raises:
        BadPeriod: it is not of that form, is zero, or is longer than 30 days.
    """
    match = _PERIOD.fullmatch(text)
    if match is None:
        raise BadPeriod(text)
    period = int(match[1]) * PERIOD_UNITS[match[2]]
    if not 0 < period <= LONGEST_PERIOD:
        raise BadPeriod(text)
    return period


@attrs.frozen
class Span:
    """[start, end) in Unix ms."""

    start: int
    end: int

    def __contains__(self, timestamp: int) -> bool:
        return self.start <= timestamp < self.end

    @property
    def empty(self) -> bool:
        """Whether the span contains no timestamp."""
        return self.start >= self.end
