"""All error answers of the service as RFC 9457 problems, including those of the router."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import structlog
from quart import Quart, current_app, has_websocket_context, request, websocket
from quart.wrappers import Response
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from marketflow.adapters.http.kinds import KINDS
from marketflow.adapters.http.near import nearest
from marketflow.adapters.http.parameters import BadParameter
from marketflow.adapters.http.peers import peer_of
from marketflow.adapters.http.responses import as_json
from marketflow.app.answers import NoData, NothingCanAnswer, TooManyClients, UnknownExchange, UnknownSymbol
from marketflow.app.instruments.seldom import Seldom
from marketflow.domain.periods import BadPeriod

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# Seconds. A start takes about that long, and so does the return of a store.
RETRY_SOON: Final = 1
# Seconds. Clients over the limit should not try again each second.
RETRY_LATER: Final = 10
TRACEBACK_EVERY: Final = 1.0

PROBLEM_JSON: Final = "application/problem+json"

_OF_STATUS: Final = {
    HTTPStatus.NOT_FOUND: "not-found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method-not-allowed",
    HTTPStatus.REQUEST_TIMEOUT: "request-timeout",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "request-entity-too-large",
    HTTPStatus.INTERNAL_SERVER_ERROR: "internal-server-error",
}


def problem(
    kind: str,
    detail: str,
    *,
    allowed: tuple[str, ...] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """A problem of one of the kinds in `KINDS`."""
    known = KINDS[kind]
    body: dict[str, Any] = {
        "type": known.type,
        "title": known.title,
        "status": known.status.value,
        "detail": detail,
    }
    if allowed is not None:
        body["allowed"] = allowed
    response = as_json(body, known.status.value, content_type=PROBLEM_JSON)
    response.headers.update(headers or {})
    return response


def unavailable(kind: str, detail: str, *, retry_after: int) -> Response:
    """The service cannot answer now, but may be able to in `retry_after` seconds."""
    return problem(kind, detail, headers={"Retry-After": str(retry_after)})


def register_problems(app: Quart) -> None:
    """Answer every exception that a route can raise, expected or not, with a problem."""
    app.register_error_handler(BadParameter, _bad_parameter)
    app.register_error_handler(BadPeriod, _bad_period)
    app.register_error_handler(UnknownSymbol, _unknown_symbol)
    app.register_error_handler(UnknownExchange, _unknown_exchange)
    app.register_error_handler(NoData, _no_data)
    app.register_error_handler(NothingCanAnswer, _nothing_can_answer)
    app.register_error_handler(TooManyClients, _too_many_clients)
    app.register_error_handler(HTTPException, _http_exception)
    app.register_error_handler(Exception, Unexpected().answer)


async def _bad_parameter(error: BadParameter) -> Response:
    return problem(error.kind, str(error), allowed=error.allowed)


async def _bad_period(error: BadPeriod) -> Response:
    return problem("bad-period", str(error), allowed=("<n>s", "<n>m", "<n>h", "<n>d"))


async def _unknown_symbol(error: UnknownSymbol) -> Response:
    return problem("unknown-symbol", str(error), allowed=error.known)


async def _unknown_exchange(error: UnknownExchange) -> Response:
    return problem("unknown-exchange", str(error), allowed=error.known)


async def _no_data(error: NoData) -> Response:
    return problem("no-data", str(error))


async def _nothing_can_answer(error: NothingCanAnswer) -> Response:
    return unavailable("nothing-can-answer", str(error), retry_after=error.retry_after)


async def _too_many_clients(error: TooManyClients) -> Response:
    return unavailable("too-many-clients", str(error), retry_after=RETRY_LATER)


async def _http_exception(error: HTTPException) -> Response:
    """The router's and the body reader's own errors."""
    status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    allowed = None
    headers: dict[str, str] = {}
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        allowed = tuple(sorted(error.valid_methods))
        headers["Allow"] = ", ".join(allowed)
    detail = status.description or status.phrase
    if isinstance(error, NotFound) and not has_websocket_context():
        near = nearest(request.path, {rule.rule for rule in current_app.url_map.iter_rules()})
        detail = f"there is no {request.path}"
        if near:
            detail, allowed = f"{detail}; did you mean {' or '.join(near)}?", tuple(near)
    return problem(_OF_STATUS.get(status, "bad-request"), detail, allowed=allowed, headers=headers)


class Unexpected:
    """Answers a request that failed because of a bug. The log has the error with the request's id.

    It has the traceback at most once in `TRACEBACK_EVERY` seconds, since a client may ask at any rate. The
    log itself limits the lines a minute (`marketflow.logs`).
    """

    def __init__(self) -> None:
        self._tracebacks = Seldom(TRACEBACK_EVERY)

    async def answer(self, error: Exception) -> Response:
        """A problem with status 500."""
        if self._tracebacks.turn() is None:
            log.error("request failed", error=f"{type(error).__name__}: {error}")
        else:
            log.error("request failed", exc_info=error)
        if has_websocket_context() and (peer := peer_of(websocket.scope)) is not None:
            # Requests are counted by their status, which a WebSocket does not have.
            peer.wire.failed(error, logged=True)
        return problem(
            "internal-server-error",
            "an unexpected error: the log has it under the request's id, unless there were too many",
        )
