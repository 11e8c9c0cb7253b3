"""Durations, boundaries and spans. Times are integers in Unix ms, UTC; spans are [start, end)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import attrs

SECOND: Final = 1_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
WEEK: Final = 7 * DAY

LONGEST_PERIOD: Final = 30 * DAY
DEFAULT_PERIOD: Final = "1m"
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
class Interval:
    """Time cut into pieces of the same length, as candles have it."""

    width: int
    """The length of each (ms)."""
    first: int = 0
    """One of the boundaries (Unix ms)."""

    def floor(self, timestamp: int) -> int:
        """The last boundary at or before `timestamp`."""
        return self.first + floor_to(timestamp - self.first, self.width)

    def ceil(self, timestamp: int) -> int:
        """The first boundary at or after `timestamp`."""
        return self.first + ceil_to(timestamp - self.first, self.width)


_MONDAY: Final = 4 * DAY
"""The first Monday after the epoch, which was a Thursday (Unix ms)."""

CANDLE_INTERVALS: Final[Mapping[str, Interval]] = {
    "1s": Interval(SECOND),
    "5s": Interval(5 * SECOND),
    "15s": Interval(15 * SECOND),
    "30s": Interval(30 * SECOND),
    "1m": Interval(MINUTE),
    "5m": Interval(5 * MINUTE),
    "15m": Interval(15 * MINUTE),
    "30m": Interval(30 * MINUTE),
    "1h": Interval(HOUR),
    "4h": Interval(4 * HOUR),
    "1d": Interval(DAY),
    "1w": Interval(WEEK, _MONDAY),
}
"""By name. Days and weeks begin at midnight UTC, weeks on Monday."""


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


@attrs.frozen
class Range:
    """The span that a question asks for: a period or the time since `start`, until `end` or now."""

    period: str | None = None
    """A text like `5m`; None with a `start`."""
    start: int | None = None
    """Unix ms."""
    end: int | None = None
    """Unix ms; None: now."""

    @property
    def named_period(self) -> str | None:
        """The period, written or by default; None with a start."""
        if self.start is not None:
            return None
        return DEFAULT_PERIOD if self.period is None else self.period

    def span(self, now: int) -> Span:
        """The span at that time (Unix ms). It does not reach beyond it.

        Raises:
            BadPeriod: the text of the period is not valid.
        """
        end = now if self.end is None else min(self.end, now)
        period = self.named_period
        start = min(self.start or 0, end) if period is None else max(0, end - parse_period(period))
        return Span(start, end)
