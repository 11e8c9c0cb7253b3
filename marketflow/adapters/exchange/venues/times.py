"""Times as venues write them, in ISO 8601. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_SECONDS_KEPT: Final = 64
"""Trades come in the order of their times, so few seconds are current."""
_FEW: Final = 8
"""Fewer times are faster to read one by one."""
_THREE_ZEROS: Final = 111 * ord("0")


def all_ms_of(texts: Sequence[str]) -> Sequence[int]:
    """Unix ms of ISO 8601 times with a time zone, rounded down.

    Raises:
        ValueError: one of them is none.
    """
    times = None if len(texts) < _FEW else _ms_within_second(texts)
    return [ms_of(text) for text in texts] if times is None else times


def _ms_within_second(texts: Sequence[str]) -> Sequence[int] | None:
    """The times of texts of one form within a second of UTC; None if they are not that."""
    first, width = min(texts), len(texts[0])
    second = first[:20]
    # All texts between two texts begin with what these two have in common.
    if not max(texts).startswith(second) or {*map(len, texts)} != {width}:
        return None
    characters = "".join(texts)
    ends = {*characters[width - 1 :: width]}
    fraction = [characters[place::width] for place in range(20, width - 1)]
    if ends != {"Z"} or len(fraction) < len("123") or not all(map(_are_digits, fraction)):
        return None
    start = _ms_of_second(second) - _THREE_ZEROS
    hundreds, tens, ones = (digits.encode() for digits in fraction[:3])
    return [
        start + 100 * hundred + 10 * ten + one for hundred, ten, one in zip(hundreds, tens, ones, strict=True)
    ]


def _are_digits(characters: str) -> bool:
    return characters.isascii() and characters.isdecimal()


def ms_of(text: str) -> int:
    """Unix ms of an ISO 8601 time with a time zone, rounded down.

    Raises:
        ValueError: it is not one.
    """
    digits = text[20:-1]
    if len(digits) >= len("123") and digits.isdecimal() and text[-1] == "Z":
        return _ms_of_second(text[:20]) + int(digits[:3])
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"no time zone: {text}")
    return (time - _EPOCH) // _MS


@lru_cache(_SECONDS_KEPT)
def _ms_of_second(text: str) -> int:
    """Unix ms of an ISO 8601 time in UTC, in seconds and with the point of their fraction."""
    if text[19] != ".":
        raise ValueError(f"no point after the seconds: {text}")
    return (datetime.fromisoformat(text[:19]).replace(tzinfo=UTC) - _EPOCH) // _MS
