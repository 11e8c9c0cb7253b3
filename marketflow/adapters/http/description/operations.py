"""The routes of the API: for each its parameters, its answer, and the problems that it may answer with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import attrs

from marketflow.adapters.http.description.page import FILES
from marketflow.adapters.http.description.values import JSON

Tag = Literal[
    "prices", "candles", "stream", "exchanges", "mode", "health", "metrics", "dashboard", "description"
]

TAGS: Final[dict[Tag, str]] = {
    "prices": "Current prices, and prices over a period.",
    "candles": "Prices in regular intervals, page by page.",
    "stream": "Live prices.",
    "exchanges": "The sources of the prices.",
    "mode": "Whether prices come from the exchanges or from a generator.",
    "health": "The state of the service.",
    "metrics": "Counters and durations.",
    "dashboard": "A page with live prices.",
    "description": "This description, and the meaning of problems.",
}

_SYMBOL: Final = ("not-found", "unknown-symbol")
_EXCHANGE: Final = ("not-found", "unknown-exchange")
_RANGE: Final = ("period", "from", "to")
_SPAN: Final = ("bad-period", "bad-start", "bad-end", "seconds", "conflicting-span")
_STORES: Final = ("nothing-can-answer", "not-ready")


@attrs.frozen
class Operation:
    """A method of a path."""

    path: str
    tag: Tag
    summary: str
    answer: str | None
    """The name of the answer's schema and example; None for a WebSocket, which has no HTTP answer."""
    text: str = ""
    method: str = "get"
    parameters: tuple[str, ...] = ()
    """The parameters outside of the path, by their names in the document's components."""
    kinds: tuple[str, ...] = ()
    """The kinds of problems that it may answer with, except for those that every route has."""
    media: tuple[str, ...] = (JSON,)
    listed: bool = False
    """Whether it answers with a list, which is also there as CSV."""
    guarded: bool = False
    """Whether it needs the token, if one is configured."""
    strict: bool = True
    """Whether unknown query parameters are an error."""
    cached: bool = False
    """Whether it can answer 304 to a client that has the current version."""
    unavailable: bool = False
    """Whether it has a second answer with status 503, which is not a problem."""


def operations() -> Iterator[Operation]:
    """All operations, in the order of the documentation."""
    yield from _prices()
    yield from _candles()
    yield from _stream()
    yield from _others()


def _prices() -> Iterator[Operation]:
    yield Operation(
        "/prices/latest",
        "prices",
        "The newest price of each exchange and symbol",
        "LatestList",
        "The newest update of each pair, of any age. Pairs without any are left out.",
        parameters=("symbol", "exchange", "format"),
        listed=True,
        kinds=("bad-format", *_SYMBOL[1:], *_EXCHANGE[1:], *_STORES),
    )
    yield from _with_and_without_exchange(
        Operation(
            "/prices/latest/{symbol}",
            "prices",
            "The newest price of a symbol",
            "Latest",
            "The update with the greatest timestamp, of any age; among equal ones the one received last.",
            parameters=("exchange",),
            kinds=(*_SYMBOL, "no-data", *_STORES),
        )
    )
    yield from _with_and_without_exchange(
        Operation(
            "/prices/at/{symbol}",
            "prices",
            "The price of a symbol at a time",
            "PriceAt",
            "The last update at or before the time. Within the last minute it is exact; before that it is "
            "the close of the last second or minute that ended by then. `resolution` says which.",
            parameters=("time", "exchange"),
            kinds=("bad-time", "seconds", *_SYMBOL, "no-data", *_STORES),
        )
    )
    for kind, what in (("highest", "highest"), ("lowest", "lowest"), ("average", "average")):
        yield Operation(
            f"/prices/{kind}",
            "prices",
            f"The {what} price of each symbol over a period",
            "StatisticList",
            "Symbols without updates in the span are left out.",
            parameters=("symbol", "exchange", *_RANGE, "format"),
            listed=True,
            kinds=("bad-format", *_SPAN, *_SYMBOL[1:], *_EXCHANGE[1:], *_STORES),
        )
        yield from _with_and_without_exchange(
            Operation(
                f"/prices/{kind}/{{symbol}}",
                "prices",
                f"The {what} price of a symbol over a period",
                "Statistic",
                parameters=("exchange", *_RANGE),
                kinds=(*_SPAN, *_SYMBOL, "no-data", *_STORES),
            )
        )
    yield Operation(
        "/prices/aggregate",
        "prices",
        "Everything about each symbol's prices over a span",
        "SummaryList",
        "Symbols without updates in the span are left out.",
        parameters=("symbol", "exchange", *_RANGE, "format"),
        listed=True,
        kinds=("bad-format", *_SPAN, *_SYMBOL[1:], *_EXCHANGE[1:], *_STORES),
    )
    yield from _with_and_without_exchange(
        Operation(
            "/prices/aggregate/{symbol}",
            "prices",
            "Everything about a symbol's prices over a period",
            "Summary",
            "The mean, the lowest, highest, first and last price, and the volume at once.",
            parameters=("exchange", *_RANGE),
            kinds=(*_SPAN, *_SYMBOL, "no-data", *_STORES),
        )
    )
    yield Operation(
        "/symbols",
        "prices",
        "The configured symbols",
        "Symbols",
        parameters=("format",),
        listed=True,
        kinds=("bad-format", "not-ready"),
    )


def _candles() -> Iterator[Operation]:
    yield from _with_and_without_exchange(
        Operation(
            "/candles/{symbol}",
            "candles",
            "A page of candles",
            "Candles",
            "Candles that begin within [start, end), the oldest first. Without `start` they are the newest "
            "ones. Where `next` is not null, it is the `start` of the following page.",
            parameters=("interval", "exchange", "start", "end", "limit", "format"),
            listed=True,
            kinds=(
                "bad-format",
                "bad-interval",
                "bad-limit",
                "bad-start",
                "bad-end",
                "seconds",
                *_SYMBOL,
                *_STORES,
            ),
        )
    )


def _stream() -> Iterator[Operation]:
    yield Operation(
        "/stream",
        "stream",
        "Live prices",
        "Event",
        "Server-Sent Events without an end. First come the newest updates of all requested pairs, then the "
        "newest update of each pair whenever it changes. A client that reads slowly skips updates, but what "
        "it gets is always the newest. After 15 s without an update a comment is sent as a heartbeat. "
        "Without `exchange` the stream has the exchanges of the current mode, also after a switch.",
        parameters=("symbol", "exchange", "last-event-id"),
        kinds=(*_SYMBOL[1:], *_EXCHANGE[1:], "too-many-clients", "not-ready"),
        media=("text/event-stream",),
    )
    yield Operation(
        "/ws",
        "stream",
        "Live prices over a WebSocket",
        None,
        "The same as `/stream`, for WebSocket clients. Each message is a `Latest` as JSON text. Every "
        "connection begins with the newest update of each pair. Heartbeats are pings. Messages of the client "
        "are ignored.",
        parameters=("symbol", "exchange"),
        kinds=(*_SYMBOL[1:], *_EXCHANGE[1:], "upgrade-required", "too-many-clients", "not-ready"),
    )


def _others() -> Iterator[Operation]:
    yield Operation(
        "/exchanges",
        "exchanges",
        "The exchanges of both modes",
        "Exchanges",
        parameters=("format",),
        listed=True,
        kinds=("bad-format",),
    )
    yield Operation("/mode", "mode", "The current mode", "ModeState")
    for mode, what in (("live", "prices of the exchanges"), ("test", "prices of a generator")):
        yield Operation(
            f"/mode/{mode}",
            "mode",
            f"Switch to {what}",
            "ModeState",
            "The answer comes when the switch is complete: no update of the other mode is accepted after it, "
            "and none was lost. Repeating the request changes nothing. A body is read and ignored; with an "
            "incomplete body nothing is switched.",
            method="post",
            kinds=(
                "bad-request",
                "unauthorized",
                "cross-site-request",
                "request-timeout",
                "request-entity-too-large",
                "nothing-can-answer",
            ),
            guarded=True,
        )
    yield Operation(
        "/health",
        "health",
        "The state of the service, its stores and its exchanges",
        "HealthReport",
        "For each exchange, at every moment: received = accepted + rejected, and accepted = cached + expired "
        "+ dropped + pending.",
        unavailable=True,
    )
    yield Operation(
        "/health/live", "health", "Whether the process should be kept running", "Probe", kinds=("not-live",)
    )
    yield Operation(
        "/health/ready", "health", "Whether it can answer requests", "Probe", kinds=("not-ready",)
    )
    yield Operation(
        "/metrics",
        "metrics",
        "All measurements, for Prometheus",
        "Metrics",
        "In Prometheus' text format, or as OpenMetrics if the `Accept` header prefers it.",
        parameters=("name",),
        media=("text/plain", "application/openmetrics-text"),
    )
    yield Operation(
        "/", "dashboard", "The dashboard", "Text", media=("text/html",), strict=False, cached=True
    )
    yield Operation(
        "/assets/{name}",
        "dashboard",
        "A file of the dashboard",
        "Text",
        kinds=("not-found",),
        media=("text/javascript", "text/css", "image/svg+xml"),
        strict=False,
        cached=True,
    )
    yield Operation("/openapi.json", "description", "This description", "Description")
    yield Operation("/docs", "description", "This description as a page", "Text", media=("text/html",))
    yield Operation(
        "/docs/{file}",
        "description",
        "A file of that page",
        "Text",
        kinds=("not-found",),
        media=tuple(dict.fromkeys(file.media for file in FILES.values())),
    )
    yield Operation("/problems", "description", "All kinds of problems", "ProblemKinds")
    yield Operation(
        "/problems/{kind}",
        "description",
        "The meaning of a kind of problem",
        "ProblemKind",
        kinds=("not-found",),
    )


def _with_and_without_exchange(operation: Operation) -> Iterator[Operation]:
    """The route, which takes the exchange in the query, and its variant with the exchange in the path."""
    kinds = (*operation.kinds, *_EXCHANGE[1:])
    yield attrs.evolve(operation, kinds=kinds)
    yield attrs.evolve(
        operation,
        path=operation.path.replace("{symbol}", "{exchange}/{symbol}"),
        summary=f"{operation.summary} on one exchange",
        parameters=tuple(name for name in operation.parameters if name != "exchange"),
        kinds=kinds,
    )
