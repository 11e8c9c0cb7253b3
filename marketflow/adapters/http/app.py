"""The HTTP application: all routes over the questions that the use cases answer."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Any, Final, cast

import structlog
import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope, WWWScope
from quart import Response, g, request, websocket
from quart.wrappers.base import BaseRequestWebsocket
from quart_trio import QuartTrio
from werkzeug.routing import MapAdapter

from marketflow.adapters.http.asgi import HttpRequest, without_messages
from marketflow.adapters.http.candles import candle_routes
from marketflow.adapters.http.compression import Compression
from marketflow.adapters.http.connection_errors import ConnectionErrors, split
from marketflow.adapters.http.cors import Cors
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
from marketflow.adapters.http.stream import stream_routes
from marketflow.adapters.http.targets import origin_form
from marketflow.adapters.http.traffic import Traffic
from marketflow.app.interface import HealthQuestions, PriceQuestions, Questions

BODY_TIMEOUT: Final = 5
"""Seconds that a client has to send the body of its request."""

REQUEST_ID: Final = "X-Request-Id"
_SANE_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def create_app(
    questions: Questions,
    *,
    token: str | None,
    hosts: Iterable[str] = (),
    origins: Collection[str] = (),
    max_body_size: int,
    stale_after: int,
) -> App:
    """The application. Sizes are in bytes.

    Args:
        questions: answers what the routes ask.
        token: if given, only a request that has it may switch the mode.
        hosts: names of the service beside loopback. Without a token, only requests to them switch the mode.
        origins: sites whose pages may read answers, or `*`.
        stale_after: the age (ms) from which on the dashboard shows a feed as stale.
    """
    prices, health = questions.prices, questions.health
    app = App("marketflow", static_folder=None)
    app.config.update(MAX_CONTENT_LENGTH=max_body_size, BODY_TIMEOUT=BODY_TIMEOUT)
    # No redirects from paths with a slash at the end: such a path is not found.
    app.url_map.strict_slashes = True
    app.url_map.merge_slashes = False
    app.url_map.redirect_defaults = False
    register_problems(app)
    cors = Cors(origins)
    app.before_request(_begin)
    traffic = Traffic(app.connection_errors)
    traffic.watch(app)
    app.before_request(cors.preflight)
    app.before_request(partial(_refuse_unless_ready, health))
    app.after_request(Compression().compress)
    app.after_request(cors.allow)
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
    app.register_blueprint(description_routes(partial(_described, prices, health, guarded=token is not None)))
    return app


def _described(prices: PriceQuestions, health: HealthQuestions, *, guarded: bool) -> Mapping[str, Any]:
    """The API's description. It is made at the first request: making it takes a twentieth of a start."""
    from marketflow.adapters.http.description.document import document  # noqa: PLC0415

    return document(
        symbols=prices.symbols,
        exchanges=prices.exchanges,
        assets=asset_names(),
        guarded=guarded,
        in_cluster=health.in_cluster,
    )


async def _begin() -> None:
    _identify(request)


async def _begin_websocket() -> None:
    _identify(websocket)


def _identify(asked: BaseRequestWebsocket) -> None:
    """Give the request an id, which the log shows too: each request's task has its own log context."""
    g.began = trio.current_time()
    given = asked.headers.get(REQUEST_ID, "")
    g.request_id = given if _SANE_REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
    structlog.contextvars.bind_contextvars(request_id=g.request_id)


async def _refuse_unless_ready(health: HealthQuestions) -> Response | None:
    """Refuse price requests while the service starts or stops, since its prices are not up to date then."""
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
    """Only a WebSocket that was refused has a response."""
    return None if response is None else _finish(websocket, response)


def _finish(asked: BaseRequestWebsocket, response: Response) -> Response:
    response.headers[REQUEST_ID] = g.request_id
    response.headers.setdefault("Cache-Control", "no-store")
    milliseconds = round((trio.current_time() - g.began) * 1000, 3)
    log.debug(
        "request answered", method=asked.method, path=asked.path, status=response.status_code, ms=milliseconds
    )
    return response


class App(QuartTrio):
    """Quart on Trio. Counts the connections that an error ends."""

    asgi_http_class = HttpRequest  # type: ignore[assignment]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.connection_errors = ConnectionErrors()

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve a request or a WebSocket. Hypercorn logs an error; here it is counted."""
        asked = cast("WWWScope", scope)
        try:
            if asked["type"] == "websocket":
                receive = partial(without_messages, receive)
            path = origin_form(asked["path"])
            await super().__call__(cast("Scope", {**scope, "path": path}), receive, send)
        except BaseException as error:
            passed_on, own = split(error)
            peer = peer_of(asked)
            if own is not None and peer is not None:
                peer.wire.failed(own, logged=isinstance(own, Exception | BaseExceptionGroup))
            if isinstance(passed_on, BaseExceptionGroup):
                # Hypercorn logs an exception group and goes on, even if it contains an exit of the process.
                for kind in (KeyboardInterrupt, SystemExit):
                    if passed_on.subgroup(kind) is not None:
                        raise kind from error
            raise

    def create_url_adapter(self, request: BaseRequestWebsocket | None) -> MapAdapter | None:
        """Match by path and method alone: by default a malformed Host header would make routing fail."""
        if request is None:
            return super().create_url_adapter(request)
        return self.url_map.bind(
            "localhost",
            url_scheme=request.scheme,
            default_method=request.method,
            path_info=request.path,
        )
