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
        Kind("conflicting-exchange", _BAD, "The path names one exchange and the query another. Name one."),
        Kind(
            "bad-period",
            _BAD,
            "The period is no whole number followed by s, m, h or d, or is not from 1s to 30d.",
        ),
        Kind("bad-interval", _BAD, "There are no candles of this interval; `allowed` lists those there are."),
        Kind("bad-limit", _BAD, "The limit is no whole number, or is out of bounds, which `detail` tells."),
        Kind("bad-start", _BAD, "The start is no time in Unix ms, or is after the end."),
        Kind("bad-end", _BAD, "The end is no time in Unix ms."),
        Kind("bad-request", _BAD, "The request is malformed, or ended before its body did."),
        Kind(
            "unauthorized",
            HTTPStatus.UNAUTHORIZED,
            "The mode is switched only for those who send the header `Authorization: Bearer <http.token>`.",
        ),
        Kind(
            "cross-site-request",
            HTTPStatus.FORBIDDEN,
            "The page of another site may have sent this. Set `http.token` and send it, or add the host that "
            "was asked to `http.allowed_hosts`; `detail` tells more.",
        ),
        Kind("not-found", _NOT_FOUND, "There is no such path."),
        Kind("unknown-symbol", _NOT_FOUND, "No such symbol is configured; `allowed` lists those that are."),
        Kind(
            "unknown-exchange", _NOT_FOUND, "No such exchange is configured; `allowed` lists those that are."
        ),
        Kind(
            "no-data",
            _NOT_FOUND,
            "Symbol and exchange are known, but no updates in the span. Ask for a longer period, or later.",
        ),
        Kind(
            "method-not-allowed",
            HTTPStatus.METHOD_NOT_ALLOWED,
            "The path exists, but not with this method; `allowed` and the header `Allow` list those it has.",
        ),
        Kind("request-timeout", HTTPStatus.REQUEST_TIMEOUT, "The request's body did not come in time."),
        Kind(
            "request-entity-too-large",
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "The request's body is too large. No route wants one at all.",
        ),
        Kind(
            "upgrade-required",
            HTTPStatus.UPGRADE_REQUIRED,
            "The path is a WebSocket's. Connect with a WebSocket client, or ask `/stream` for the same.",
        ),
        Kind(
            "internal-server-error",
            HTTPStatus.INTERNAL_SERVER_ERROR,
            "A mistake of the service, which is in its log under the request's id. Nothing else is harmed.",
        ),
        Kind(
            "nothing-can-answer",
            _UNAVAILABLE,
            "What could tell is in a store that is away. Ask again after `Retry-After` seconds.",
        ),
        Kind(
            "not-ready",
            _UNAVAILABLE,
            "The service is starting or stopping. Ask again after `Retry-After` seconds.",
        ),
        Kind(
            "too-many-clients",
            _UNAVAILABLE,
            "The live stream has as many clients as it may have. Try again after `Retry-After` seconds, or "
            "raise `http.max_stream_clients`.",
        ),
        Kind("not-live", _UNAVAILABLE, "The process is beyond recovery. Restart it."),
    )
}
