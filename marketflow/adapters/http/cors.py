"""Answers to pages of other sites, as far as `http.cors_origins` allows them (CORS, in the Fetch standard).

Only questions are allowed: no page of another site gets an answer to a switch of the mode.
"""

from __future__ import annotations

from collections.abc import Collection
from http import HTTPStatus
from typing import Final

from quart import request
from quart.wrappers import Response
from quart_trio.wrappers import TrioResponse

ANY: Final = "*"
"""Among the origins: pages of all sites."""
READING: Final = ("GET", "HEAD")
_EXPOSED: Final = "Link, Retry-After, X-Known-From, X-Request-Id"
"""Headers that a page may read, besides those that every page may read."""
_AGE: Final = "86400"
"""Seconds for which a browser remembers the answer to a preflight."""


class Cors:
    """Adds the headers for allowed origins, and answers preflights. Without origins it does nothing."""

    def __init__(self, origins: Collection[str]) -> None:
        """`origins` like `https://example.com`, in lower case, or `*`."""
        self._origins = frozenset(origins)

    async def preflight(self) -> Response | None:
        """The answer to a browser's question whether its page may ask; None to any other request."""
        wanted = request.headers.get("Access-Control-Request-Method")
        if request.method != "OPTIONS" or wanted not in READING or self._allowed is None:
            return None
        response = TrioResponse(b"", status=HTTPStatus.NO_CONTENT)
        response.headers["Access-Control-Allow-Methods"] = ", ".join(READING)
        response.headers["Access-Control-Allow-Headers"] = "Accept, Last-Event-ID, X-Request-Id"
        response.headers["Access-Control-Max-Age"] = _AGE
        return response

    async def allow(self, response: Response) -> Response:
        """Say whether the page that has asked may read the answer."""
        if not self._origins or request.method not in {*READING, "OPTIONS"}:
            return response
        if ANY not in self._origins:
            response.vary.add("Origin")
        if (allowed := self._allowed) is not None:
            response.headers["Access-Control-Allow-Origin"] = allowed
            response.headers["Access-Control-Expose-Headers"] = _EXPOSED
        return response

    @property
    def _allowed(self) -> str | None:
        """The origin to allow; None: the page's origin is not among those that are allowed."""
        if ANY in self._origins:
            return ANY
        origin = request.headers.get("Origin", "")
        return origin if origin.lower() in self._origins else None
