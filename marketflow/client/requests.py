"""Requests to the service."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final
from urllib.parse import quote, urlencode

import attrs

OK: Final = 200
UNAVAILABLE: Final = 503
"""A plain number, since importing `http.HTTPStatus` would take longer than the rest of the command line."""


@attrs.frozen
class Request:
    """A request of the API."""

    path: tuple[str, ...]
    """The parts of the path, not encoded."""
    parameters: Mapping[str, str | int | None] = attrs.field(factory=dict)
    """Query parameters. Those with the value None are left out."""
    method: str = "GET"
    headers: Mapping[str, str] = attrs.field(factory=dict)
    good: Collection[int] = (OK,)
    """The statuses that are not an error."""

    @property
    def target(self) -> str:
        """Path and query, as they are sent."""
        query = urlencode({name: value for name, value in self.parameters.items() if value is not None})
        return "".join(f"/{quote(part, safe='')}" for part in self.path) + (f"?{query}" if query else "")


SYMBOLS: Final = Request(("symbols",))
EXCHANGES: Final = Request(("exchanges",))
MODE: Final = Request(("mode",))
HEALTH: Final = Request(("health",), good=(OK, UNAVAILABLE))
"""The report comes with status 503 if the service is unavailable."""
