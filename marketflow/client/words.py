"""Numbers, times and names as people read them in a terminal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "m"))


def rounded(price: float) -> str:
    """A price for a table that changes, with only as many digits as are useful."""
    if price >= 1_000:  # noqa: PLR2004
        return f"{price:.2f}"
    return f"{price:.4f}" if price >= 1 else f"{price:#.4g}"


def age(seconds: float) -> str:
    """How long ago: `0.3s`, `12s`, `5m`, `3h`, `2d`."""
    for unit, name in _UNITS:
        if seconds >= unit:
            return f"{int(seconds // unit)}{name}"
    # Rounded down: an age that is slightly too small was true a moment ago.
    return f"{int(seconds)}s" if seconds >= 10 else f"{max(0, int(seconds * 10)) / 10}s"  # noqa: PLR2004


def moment(timestamp: int) -> str:
    """Unix ms as ISO 8601, in UTC."""
    try:
        at = datetime.fromtimestamp(timestamp / 1_000, UTC)
    except (OverflowError, ValueError, OSError):
        return str(timestamp)  # beyond every calendar
    return f"{at:%Y-%m-%dT%H:%M:%S}.{timestamp % 1_000:03}Z"


def plain(text: str) -> str:
    """The text without characters that control a terminal."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
