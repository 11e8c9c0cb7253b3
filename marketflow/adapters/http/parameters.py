"""Checks of query parameters. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from marketflow.app.interface import Names
from marketflow.domain.periods import Range

LARGEST_INTEGER: Final = 2**63 - 1

# ASCII digits only (`int` takes others, signs, spaces and underscores), and few enough to convert at once.
_INTEGER: Final = re.compile(r"[0-9]{1,19}")

# As ISO 8601 and RFC 3339 write it. In a query a `+` that was not encoded is a space.
_ISO: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?:[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,9})?)?(?:[Zz]|[+ -][0-9]{2}:?[0-9]{2})?)?"
)
_ZONE: Final = re.compile(r" ([0-9]{2}:?[0-9]{2})$")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)

SECONDS: Final = range(10**8, 10**11)
"""Numbers that can only be Unix seconds, from 1973 to 5138: as ms they would be in the first three years."""


class BadParameter(ValueError):
    """A query parameter is unknown or repeated, or its value is not allowed."""

    def __init__(self, kind: str, detail: str, allowed: Iterable[str] | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        """The kind of problem, such as `unknown-parameter` or `bad-interval`."""
        self.allowed = None if allowed is None else tuple(allowed)
        """The names or values that would be accepted; None if there are too many to list."""


def parameters(pairs: Iterable[tuple[str, str]], allowed: Collection[str]) -> dict[str, str]:
    """The parameters by name.

    Raises:
        BadParameter: one is not in `allowed`, or is given more than once.
    """
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in allowed:
            raise BadParameter("unknown-parameter", f"unknown query parameter {name!r}", allowed)
        if name in given:
            raise BadParameter("repeated-parameter", f"query parameter {name!r} is given more than once")
        given[name] = value
    return given


def with_exchange(
    pairs: Iterable[tuple[str, str]], in_path: str | None, allowed: Collection[str]
) -> tuple[Names, dict[str, str]]:
    """The exchanges and the other parameters. The query may have exchanges only if the path has none.

    Args:
        pairs: the query.
        in_path: the exchange in the path, None if it has none.
        allowed: the parameters besides the exchange.

    Raises:
        BadParameter: as `parameters`.
    """
    if in_path is not None:
        return (in_path,), parameters(pairs, allowed)
    given = parameters(pairs, ("exchange", *allowed))
    return names(given.pop("exchange", None)), given


def names(text: str | None) -> Names:
    """The names in a list with commas, each once; None if it is not given."""
    return None if text is None else tuple(dict.fromkeys(text.split(",")))


def symbol_names(text: str | None) -> Names:
    """The symbols in a list with commas. Their case does not matter."""
    return None if text is None else names(text.upper())


def asked_names(given: Mapping[str, str]) -> tuple[Names, Names]:
    """The symbols and exchanges that `symbol` and `exchange` ask for."""
    return symbol_names(given.get("symbol")), names(given.get("exchange"))


def asked_range(given: Mapping[str, str]) -> Range:
    """The span that `period`, `start` and `end` ask for.

    Raises:
        BadParameter: one is not a valid time, they exclude each other, or the end is not after the start.
    """
    period = given.get("period")
    start, end = (optional_timestamp(name, given.get(name)) for name in ("start", "end"))
    if period is not None and start is not None:
        raise BadParameter("conflicting-span", "give a period or a start, not both")
    check_order(start, end)
    return Range(period, start, end)


def check_order(start: int | None, end: int | None) -> None:
    """Raises BadParameter if the start is after the end."""
    if start is not None and end is not None and start > end:
        raise BadParameter("bad-start", f"start {start} is after end {end}")


def integer(name: str, text: str, *, least: int, most: int) -> int:
    """A whole number in ASCII digits, from `least` (0 or more) to `most`.

    Raises:
        BadParameter: the text is not such a number, or is out of bounds.
    """
    if _INTEGER.fullmatch(text) is not None and least <= (number := int(text)) <= most:
        return number
    raise BadParameter(f"bad-{name}", f"{name} must be a whole number from {least} to {most}, not {text!r}")


def optional_timestamp(name: str, text: str | None) -> int | None:
    """A time in Unix ms; None if it is not given. See `timestamp`."""
    return None if text is None else timestamp(name, text)


def timestamp(name: str, text: str) -> int:
    """A time in Unix ms, or as ISO 8601 (`2026-11-26T10:00:00Z`; without a zone it is UTC), in Unix ms.

    What is finer than a ms is cut off.

    Raises:
        BadParameter: it is not a valid time, or it is in seconds.
    """
    if _ISO.fullmatch(text) is not None:
        return _iso(name, text)
    if _INTEGER.fullmatch(text) is None or (number := int(text)) > LARGEST_INTEGER:
        raise BadParameter(
            f"bad-{name}",
            f"{name} must be a time in Unix ms, or like 2026-11-26T10:00:00Z, not {text!r}",
        )
    if number in SECONDS:
        raise BadParameter("seconds", f"{name} must be in milliseconds: {number}000 instead of {number}")
    return number


def _iso(name: str, text: str) -> int:
    written = _ZONE.sub(r"+\1", text) if len(text) > len("2026-11-26T10:00") else text
    try:
        time = datetime.fromisoformat(written.upper())
        if time.tzinfo is None:
            time = time.replace(tzinfo=UTC)
        return max(0, (time - _EPOCH) // _MILLISECOND)
    except (ValueError, OverflowError) as error:
        raise BadParameter(f"bad-{name}", f"{name} is no time: {text!r} ({error})") from None


def choice(name: str, text: str, allowed: Collection[str]) -> str:
    """The text, if it is one of the allowed values.

    Raises:
        BadParameter: it is not.
    """
    if text in allowed:
        return text
    raise BadParameter(f"bad-{name}", f"unknown {name} {text!r}", allowed)
