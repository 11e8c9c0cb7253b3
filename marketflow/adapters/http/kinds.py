"""The kinds of problems that the service answers with: name, status and meaning of each."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import attrs


@attrs.frozen
class Kind:
    """A kind of problem. Programs tell kinds apart by their type."""

    name: str
    status: HTTPStatus
    meaning: str
    """What is wrong, and what to do about it."""

    @property
    def type(self) -> str:
        """The relative URI that identifies this kind in an answer. It is also the page that explains it."""
        return f"/problems/{self.name}"

    @property
    def title(self) -> str:
        """The name, for people."""
        return self.name.replace("-", " ").capitalize()

    @property
    def explanation(self) -> dict[str, object]:
        """The kind as JSON, for its page."""
        return {
            "type": self.type,
            "title": self.title,
            "status": self.status.value,
            "meaning": self.meaning,
        }


_BAD: Final = HTTPStatus.BAD_REQUEST
_NOT_FOUND: Final = HTTPStatus.NOT_FOUND
_UNAVAILABLE: Final = HTTPStatus.SERVICE_UNAVAILABLE

KINDS: Final[Mapping[str, Kind]] = {
    kind.name: kind
    for kind in (
        Kind(
            "unknown-parameter", _BAD, "The route has no such query parameter; `allowed` lists those it has."
        ),
        Kind("repeated-parameter", _BAD, "A query parameter may be given once."),
        Kind(
            "bad-period",
            _BAD,
            "The period is not a whole number followed by s, m, h or d, or it is not between 1s and 30d.",
        ),
        Kind("bad-interval", _BAD, "There are no candles of this interval; `allowed` lists the intervals."),
        Kind("bad-format", _BAD, "There are no answers in this format; `allowed` lists the formats."),
        Kind(
            "bad-limit", _BAD, "The limit is not a whole number or is out of bounds; `detail` has the bounds."
        ),
        Kind("bad-start", _BAD, "The start is not a time in Unix ms or ISO 8601, or it is after the end."),
        Kind("bad-end", _BAD, "The end is not a time in Unix ms or ISO 8601."),
        Kind("bad-time", _BAD, "The time is missing, or is not one in Unix ms or ISO 8601."),
        Kind(
            "seconds", _BAD, "The number can only be in seconds. Times are in Unix ms: append three digits."
        ),
        Kind("conflicting-span", _BAD, "`period` and `start` exclude each other. Give one of them."),
        Kind("bad-request", _BAD, "The request is malformed, or ended before its body did."),
        Kind(
            "unauthorized",
            HTTPStatus.UNAUTHORIZED,
            "Switching the mode needs the header `Authorization: Bearer <http.token>`.",
        ),
        Kind(
            "cross-site-request",
            HTTPStatus.FORBIDDEN,
            "A page of another site may have sent this request. Set `http.token` and send it, or add the "
            "requested host to `http.allowed_hosts`; `detail` says more.",
        ),
        Kind(
            "not-found", _NOT_FOUND, "There is no such path; `allowed` lists those that may have been meant."
        ),
        Kind("unknown-symbol", _NOT_FOUND, "No such symbol is configured; `allowed` lists those that are."),
        Kind(
            "unknown-exchange", _NOT_FOUND, "No such exchange is configured; `allowed` lists those that are."
        ),
        Kind(
            "no-data",
            _NOT_FOUND,
            "Symbol and exchange are known but have no updates in the span. Try a longer period, or later.",
        ),
        Kind(
            "method-not-allowed",
            HTTPStatus.METHOD_NOT_ALLOWED,
            "The path exists, but not with this method; `allowed` and the header `Allow` list those it has.",
        ),
        Kind("request-timeout", HTTPStatus.REQUEST_TIMEOUT, "The request's body did not arrive in time."),
        Kind(
            "request-entity-too-large",
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "The request's body is too large. No route needs a body.",
        ),
        Kind(
            "upgrade-required",
            HTTPStatus.UPGRADE_REQUIRED,
            "The path is for WebSockets. Connect with a WebSocket client, or use `/stream`.",
        ),
        Kind(
            "internal-server-error",
            HTTPStatus.INTERNAL_SERVER_ERROR,
            "A bug in the service. The log has the error and the request's id. No other request is harmed.",
        ),
        Kind(
            "nothing-can-answer",
            _UNAVAILABLE,
            "The store that has the answer is away. Try again after `Retry-After` seconds.",
        ),
        Kind(
            "not-ready",
            _UNAVAILABLE,
            "The service is starting or stopping. Try again after `Retry-After` seconds.",
        ),
        Kind(
            "too-many-clients",
            _UNAVAILABLE,
            "The live stream has the largest allowed number of clients. Try again after `Retry-After` "
            "seconds, or raise `http.max_stream_clients`.",
        ),
        Kind("not-live", _UNAVAILABLE, "The process is beyond recovery. Restart it."),
    )
}
