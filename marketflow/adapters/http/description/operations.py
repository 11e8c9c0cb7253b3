"""What can be asked, route by route: parameters, the answer, and the problems that may come instead."""

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
    "stream": "Prices as they come.",
    "exchanges": "Where the prices come from.",
    "mode": "Prices of the exchanges, or of a generator.",
    "health": "How the service is.",
    "metrics": "What is counted and timed.",
    "dashboard": "The same for people.",
    "description": "This description, and the meaning of problems.",
}

_SYMBOL: Final = ("not-found", "unknown-symbol")
_EXCHANGE: Final = ("not-found", "unknown-exchange")
_STORES: Final = ("nothing-can-answer", "not-ready")


@attrs.frozen
class Operation:
    """A method of a path."""

    path: str
    tag: Tag
    summary: str
    answer: str | None
    """The schema of its answer, and the example's name; None if it ends HTTP on the connection."""
    text: str = ""
    method: str = "get"
    parameters: tuple[str, ...] = ()
    """The parameters that are not in the path, by their names among the components."""
    kinds: tuple[str, ...] = ()
    """The kinds of problems, but for those that every route may have."""
    media: tuple[str, ...] = (JSON,)
    guarded: bool = False
    """Whether it wants the token, where there is one."""
    strict: bool = True
    """Whether query parameters that it does not know are an error."""
    cached: bool = False
    """Whether who has it already may learn that nothing has changed."""
    unavailable: bool = False
    """Whether it answers with 503 too, and not with a problem then."""


def operations() -> Iterator[Operation]:
    """All of them, in the order of the documentation."""
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
        parameters=("symbol", "exchange"),
        kinds=(*_SYMBOL[1:], *_EXCHANGE[1:], *_STORES),
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
    for kind, what in (("highest", "highest"), ("lowest", "lowest"), ("average", "average")):
        yield Operation(
            f"/prices/{kind}",
            "prices",
            f"The {what} price of each symbol over a period",
            "StatisticList",
            "Symbols without updates in the span are left out.",
            parameters=("symbol", "exchange", "period"),
            kinds=("bad-period", *_SYMBOL[1:], *_EXCHANGE[1:], *_STORES),
        )
        yield from _with_and_without_exchange(
            Operation(
                f"/prices/{kind}/{{symbol}}",
                "prices",
                f"The {what} price of a symbol over a period",
                "Statistic",
                parameters=("exchange", "period"),
                kinds=("bad-period", *_SYMBOL, "no-data", *_STORES),
            )
        )
    yield from _with_and_without_exchange(
        Operation(
            "/prices/aggregate/{symbol}",
            "prices",
            "Everything about a symbol's prices over a period",
            "Summary",
            "The mean, the lowest, highest, first and last price at once.",
            parameters=("exchange", "period"),
            kinds=("bad-period", *_SYMBOL, "no-data", *_STORES),
        )
    )
    yield Operation("/symbols", "prices", "The configured symbols", "Symbols", kinds=("not-ready",))


def _candles() -> Iterator[Operation]:
    yield from _with_and_without_exchange(
        Operation(
            "/candles/{symbol}",
            "candles",
            "A page of candles",
            "Candles",
            "Candles that begin within [start, end), the oldest first. Without `start` they are the newest "
            "ones. Where `next` is not null, it is the `start` of the following page.",
            parameters=("interval", "exchange", "start", "end", "limit"),
            kinds=("bad-interval", "bad-limit", "bad-start", "bad-end", *_SYMBOL, *_STORES),
        )
    )


def _stream() -> Iterator[Operation]:
    yield Operation(
        "/stream",
        "stream",
        "Prices as they come",
        "Event",
        "Server-Sent Events without an end. First the newest update of each pair that is asked for, then "
        "each pair's newest as it changes: a client that reads slowly misses those in between, and is never "
        "behind. After 15 s without any there is a comment as a heartbeat. Without `exchange` it follows the "
        "mode.",
        parameters=("symbol", "exchange", "last-event-id"),
        kinds=(*_SYMBOL[1:], *_EXCHANGE[1:], "too-many-clients", "not-ready"),
        media=("text/event-stream",),
    )
    yield Operation(
        "/ws",
        "stream",
        "Prices as they come, over a WebSocket",
        None,
        "The same as `/stream` for WebSocket clients: each message is a `Latest` as JSON text. It begins "
        "with the newest of each pair each time, and pings where `/stream` has a heartbeat. What a client "
        "says is ignored.",
        parameters=("symbol", "exchange"),
        kinds=(*_SYMBOL[1:], *_EXCHANGE[1:], "upgrade-required", "too-many-clients", "not-ready"),
    )


def _others() -> Iterator[Operation]:
    yield Operation("/exchanges", "exchanges", "The exchanges of both modes", "Exchanges")
    yield Operation("/mode", "mode", "The current mode", "ModeState")
    for mode, what in (("live", "prices of the exchanges"), ("test", "prices of a generator")):
        yield Operation(
            f"/mode/{mode}",
            "mode",
            f"Switch to {what}",
            "ModeState",
            "Answered once the switch is done: no update of the other mode comes after that, and none is "
            "lost. It may be repeated. A body is read and ignored; half a body switches nothing.",
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
        "Everything about the service's state",
        "HealthReport",
        "Of each exchange, at every moment: received = accepted + rejected, and accepted = cached + expired "
        "+ dropped + pending.",
        unavailable=True,
    )
    yield Operation(
        "/health/live", "health", "Whether the process is worth keeping", "Probe", kinds=("not-live",)
    )
    yield Operation(
        "/health/ready", "health", "Whether questions should be sent here", "Probe", kinds=("not-ready",)
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
        "What the dashboard is made of",
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
        "What the page is made of",
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
    """The route, where the exchange stands in the query, and its twin that has it in the path."""
    kinds = (*operation.kinds, *_EXCHANGE[1:])
    yield attrs.evolve(operation, kinds=kinds)
    yield attrs.evolve(
        operation,
        path=operation.path.replace("{symbol}", "{exchange}/{symbol}"),
        summary=f"{operation.summary} on one exchange",
        kinds=("conflicting-exchange", *kinds),
    )
