"""Which routes a path that does not exist may have meant. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from typing import Final
from urllib.parse import quote

ALIKE: Final = 0.7
"""From so much likeness (0 to 1) on a route may have been meant."""
_LONGEST: Final = 200
"""Characters. Longer paths are not looked at."""


def nearest(path: str, routes: Iterable[str]) -> list[str]:
    """The paths that may have been meant; none if the path is like no route.

    A slash at the end, doubled slashes and capitals are what is wrong most often, or the symbol is missing. A
    route's variable parts (`<symbol>`) are taken from the path. If nothing is like the last part, all routes
    beside it are meant.
    """
    if len(path) > _LONGEST:
        return []
    asked = [part for part in path.split("/") if part]
    known = [[part for part in route.split("/") if part] for route in routes]
    as_long = [parts for parts in known if len(parts) == len(asked) > 0]
    alike = {_filled(parts, asked): _likeness(parts, asked) for parts in as_long}
    best = max(alike.values(), default=0.0)
    longer = [parts for parts in known if len(parts) > len(asked) > 0 and parts[: len(asked)] == asked]
    if longer and best < 1.0:
        least = min(map(len, longer))
        return sorted("/" + "/".join(parts) for parts in longer if len(parts) == least)
    if best >= ALIKE:
        return sorted(route for route, likeness in alike.items() if likeness == best)
    return sorted(
        _filled(parts, asked)
        for parts in as_long
        if len(parts) > 1 and parts[:-1] == asked[:-1] and not _varies(parts[-1])
    )


def _varies(part: str) -> bool:
    return part.startswith("<")


def _filled(parts: Sequence[str], asked: Sequence[str]) -> str:
    """The route as a path, with the variable parts of the request."""
    return "/" + "/".join(
        quote(given) if _varies(part) else part for part, given in zip(parts, asked, strict=True)
    )


def _likeness(parts: Sequence[str], asked: Sequence[str]) -> float:
    """How much the least similar of the fixed parts is like what was asked for."""
    return min(
        SequenceMatcher(None, part, given.lower()).ratio()
        for part, given in zip(parts, asked, strict=True)
        if not _varies(part)
    )
