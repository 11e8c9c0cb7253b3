"""Messages that are JSON, and what is in them. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, OverflowError)
"""What reading a message of any content may raise."""
_DIGITS: Final = 18
"""The most digits of a request's number."""


def decoded(frame: bytes) -> Any:
    """A frame as a value; None if it is no JSON."""
    try:
        return msgspec.json.decode(frame)
    except UNREADABLE:
        return None


def members(frame: bytes) -> Mapping[str, Any] | None:
    """The members of a frame; None if it is no JSON object."""
    value = decoded(frame)
    return value if isinstance(value, dict) else None


def member(value: object, *path: str) -> Any:
    """The member at a path of names; None if there is none."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def text_of(value: object, otherwise: str) -> str:
    """A text that is not empty, or another one in its place."""
    return value if isinstance(value, str) and value else otherwise


def request_of(value: object) -> int | None:
    """The number of a request, also as text; None if it cannot be one of ours."""
    if isinstance(value, str) and value.isdecimal() and len(value) <= _DIGITS:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def reason_of(value: object) -> str:
    """The reason of a refusal, in the venue's own words."""
    return text_of(value, "no reason given")
