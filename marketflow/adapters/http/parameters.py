"""Checks of query parameters. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final

LARGEST_INTEGER: Final = 2**63 - 1

# ASCII digits only (`int` takes others, signs, spaces and underscores), and few enough to convert at once.
_INTEGER: Final = re.compile(r"[0-9]{1,19}")


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
) -> tuple[str | None, dict[str, str]]:
    """The exchange and the other parameters. The query may have an exchange only if the path has none.

    Args:
        pairs: the query.
        in_path: the exchange in the path, None if it has none.
        allowed: the parameters besides the exchange.

    Raises:
        BadParameter: as `parameters`.
    """
    if in_path is not None:
        return in_path, parameters(pairs, allowed)
    given = parameters(pairs, ("exchange", *allowed))
    return given.pop("exchange", None), given


def integer(name: str, text: str, *, least: int, most: int) -> int:
    """A whole number in ASCII digits, from `least` (0 or more) to `most`.

    Raises:
        BadParameter: the text is not such a number, or is out of bounds.
    """
    if _INTEGER.fullmatch(text) is not None and least <= (number := int(text)) <= most:
        return number
    raise BadParameter(f"bad-{name}", f"{name} must be a whole number from {least} to {most}, not {text!r}")


def optional_timestamp(name: str, text: str | None) -> int | None:
    """A time in Unix ms; None if it is not given.

    Raises:
        BadParameter: it is not a valid time.
    """
    return None if text is None else integer(name, text, least=0, most=LARGEST_INTEGER)


def choice(name: str, text: str, allowed: Collection[str]) -> str:
    """The text, if it is one of the allowed values.

    Raises:
        BadParameter: it is not.
    """
    if text in allowed:
        return text
    raise BadParameter(f"bad-{name}", f"unknown {name} {text!r}", allowed)
