"""The HTTP application: all routes over the questions that the use cases answer."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import Any, Final, cast

import structlog
import trio
from hypercorn.typing import (
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    HTTPScope,
    Scope,
    WWWScope,
)
from quart import Quart, Response, g, request, websocket
from quart.wrappers.base import BaseRequestWebsocket
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection
from werkzeug.routing import MapAdapter

from marketflow.adapters.http.candles import candle_routes
from marketflow.adapters.http.connection_errors import ConnectionErrors, split
from marketflow.adapters.http.description.routes import description_routes
from marketflow.adapters.http.exchanges import exchange_routes
from marketflow.adapters.http.guard import Guard
from marketflow.adapters.http.health import health_routes
from marketflow.adapters.http.metrics import metric_routes
from marketflow.adapters.http.mode import mode_routes
from marketflow.adapters.http.pages import asset_names, page_routes
from marketflow.adapters.http.peers import peer_of
from marketflow.adapters.http.prices import price_routes
from marketflow.adapters.http.problem import register_problems, unavailable
from marketflow.adapters.http.stream import CLOSING, stream_routes
from marketflow.adapters.http.targets import origin_form
from marketflow.adapters.http.traffic import Traffic
from marketflow.adapters.http.websockets import WebSocketConnection
from marketflow.app.interface import HealthQuestions, PriceQuestions, Questions

BODY_TIMEOUT: Final = 5
"""Seconds that a client has to send its body in."""
LINGER: Final = 1.0
"""Seconds that an answered request's body is still read for."""

REQUEST_ID: Final = "X-Request-Id"
_SANE_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def create_app(
    questions: Questions,
    *,
    token: str | None,
    hosts: Iterable[str] = (),
    max_body_size: int,
    stale_after: int,
) -> App:
    """The application. Sizes are in bytes.

    Args:
        questions: what answers.
        token: guards the switch of the mode where it is not None.
        hosts: the names that the service goes by, beside loopback; without a token they guard the switch.
        stale_after: the age (ms) past which a feed is stale, for the dashboard.
    """
    prices, health = questions.prices, questions.health
    app = App("marketflow", static_folder=None)
    app.config.update(MAX_CONTENT_LENGTH=max_body_size, BODY_TIMEOUT=BODY_TIMEOUT)
    # No redirects: a path is right or it is not.
    app.url_map.strict_slashes = True
    app.url_map.merge_slashes = False
    app.url_map.redirect_defaults = False
    register_problems(app)
    app.before_request(_begin)
    traffic = Traffic(app.connection_errors)
    traffic.watch(app)
    app.before_request(partial(_refuse_unless_ready, health))
    app.after_request(_end)
    app.before_websocket(_begin_websocket)
    app.before_websocket(partial(_refuse_websocket_unless_ready, health))
    app.after_websocket(_end_websocket)  # type: ignore[type-var]  # it says Response only
    app.register_blueprint(price_routes(prices))
    app.register_blueprint(candle_routes(prices))
    app.register_blueprint(stream_routes(questions.stream))
    app.register_blueprint(exchange_routes(health))
    app.register_blueprint(mode_routes(questions.modes, Guard(token, hosts)))
    app.register_blueprint(health_routes(health))
    app.register_blueprint(metric_routes(questions.measuring, traffic))
    app.register_blueprint(page_routes(stale_after=stale_after))
    app.register_blueprint(description_routes(partial(_described, prices, guarded=token is not None)))
    return app


def _described(prices: PriceQuestions, *, guarded: bool) -> Mapping[str, Any]:
    """The description. It takes a twentieth of a start, and most services are never asked for it."""
    from marketflow.adapters.http.description.document import document  # noqa: PLC0415

    return document(symbols=prices.symbols, exchanges=prices.exchanges, assets=asset_names(), guarded=guarded)


async def _begin() -> None:
    _identify(request)


async def _begin_websocket() -> None:
    _identify(websocket)


def _identify(asked: BaseRequestWebsocket) -> None:
    """Give the request its id. A request runs in a task of its own: what is bound is bound for it alone."""
    g.began = trio.current_time()
    given = asked.headers.get(REQUEST_ID, "")
    g.request_id = given if _SANE_REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
    structlog.contextvars.bind_contextvars(request_id=g.request_id)


async def _refuse_unless_ready(health: HealthQuestions) -> Response | None:
    """No prices while it starts or stops: they would be older than what is known a moment later."""
    if request.blueprint not in {"prices", "candles", "stream"} or health.ready:
        return None
    return _not_ready()


async def _refuse_websocket_unless_ready(health: HealthQuestions) -> Response | None:
    return None if health.ready else _not_ready()


def _not_ready() -> Response:
    return unavailable("not-ready", "the service is starting, or stopping", retry_after=1)


async def _end(response: Response) -> Response:
    return _finish(request, response)


async def _end_websocket(response: Response | None) -> Response | None:
    """Only one that was refused has a response."""
    return None if response is None else _finish(websocket, response)


def _finish(asked: BaseRequestWebsocket, response: Response) -> Response:
    response.headers[REQUEST_ID] = g.request_id
    response.headers.setdefault("Cache-Control", "no-store")
    milliseconds = round((trio.current_time() - g.began) * 1000, 3)
    log.debug("request", method=asked.method, path=asked.path, status=response.status_code, ms=milliseconds)
    return response


class Connection(TrioASGIHTTPConnection):
    """One request, from its head to the end of its answer."""

    def __init__(self, app: Quart, scope: HTTPScope) -> None:
        super().__init__(app, {**scope, "path": origin_form(scope["path"])})
        self._body_received = trio.Event()
        self._peer = peer_of(scope)

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer the request. What a route enters for the time of its answer is left at the end of it."""
        with ExitStack() as closing:
            self.scope = cast("HTTPScope", {**self.scope, CLOSING: closing})
            if self._peer is None or _has_body(self.scope):
                await super().__call__(partial(self._receive, receive), partial(self._send, send))
                return
            # Most have no body. Then nothing need be received while they are answered, which costs a nursery
            # and two tasks, a tenth of the whole: that the client has left the connection knows.
            self._body_received.set()
            with self._peer.answering():
                await self._answer(partial(self._send, send))

    async def _answer(self, send: ASGISendCallable) -> None:
        asked = self._create_request_from_scope(send)
        asked.body.set_complete()
        response = await self.app.handle_request(asked)
        timeout = self.app.config["RESPONSE_TIMEOUT"]
        if isinstance(response, Response) and response.timeout is not Ellipsis:
            timeout = cast("float | None", response.timeout)
        with trio.move_on_after(math.inf if timeout is None else timeout):
            await self._send_response(send, response)

    async def _receive(self, receive: ASGIReceiveCallable) -> ASGIReceiveEvent:
        event = await receive()
        if event["type"] == "http.request" and not event["more_body"]:
            self._body_received.set()
        return event

    async def _send(self, send: ASGISendCallable, event: ASGISendEvent) -> None:
        if self._peer is not None and _tells_its_length(event):
            self._peer.hold()
        if event["type"] != "http.response.body" or event["more_body"]:
            await send(event)
            return
        # Hypercorn closes the connection if the body has not come to its end by now, and what is still on
        # its way makes the kernel reset it: the client would lose an answer such as 405 or 413.
        if not self._body_received.is_set():
            if self._peer is not None:
                await self._peer.release()
            with trio.move_on_after(LINGER):
                await self._body_received.wait()
        # Sending the end lets Hypercorn report a disconnect, at which quart-trio cancels a request that has a
        # body before the connection has been told that it is idle: it would never be closed for that.
        with nullcontext() if self._peer is None else self._peer.ending.shielded():
            if self._peer is not None:
                await self._peer.release()
            await send(event)


def _has_body(scope: HTTPScope) -> bool:
    return any(name in {b"content-length", b"transfer-encoding"} for name, _ in scope["headers"])


def _tells_its_length(event: ASGISendEvent) -> bool:
    return event["type"] == "http.response.start" and any(
        name == b"content-length" for name, _ in event["headers"]
    )


class App(QuartTrio):
    """Quart on Trio, with some things put right."""

    asgi_http_class = Connection
    asgi_websocket_class = WebSocketConnection

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.connection_errors = ConnectionErrors()

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve a request or a WebSocket. Hypercorn logs what fails; here it is counted."""
        try:
            await super().__call__(scope, receive, send)
        except BaseException as error:
            passed_on, own = split(error)
            peer = peer_of(cast("WWWScope", scope))
            if own is not None and peer is not None:
                peer.failed(own, logged=isinstance(own, Exception | BaseExceptionGroup))
            if isinstance(passed_on, BaseExceptionGroup):
                # Of a group Hypercorn keeps everything back, even what ends the process.
                for kind in (KeyboardInterrupt, SystemExit):
                    if passed_on.subgroup(kind) is not None:
                        raise kind from error
            raise

    def create_url_adapter(self, request: BaseRequestWebsocket | None) -> MapAdapter | None:
        """Match by path and method alone: a strange Host header is no reason to fail."""
        if request is None:
            return super().create_url_adapter(request)
        return self.url_map.bind(
            "localhost",
            url_scheme=request.scheme,
            default_method=request.method,
            path_info=request.path,
        )
