"""Counts and times requests by route, not by path: clients can invent any number of paths."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import Final

import trio
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from quart import Quart, Response, g, request

from marketflow.adapters.http.connection_errors import ConnectionErrors
from marketflow.adapters.http.families import buckets_of
from marketflow.app.instruments.histogram import Histogram

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
OTHER: Final = "other"
"""Any method that is not in METHODS."""
UNMATCHED: Final = "unmatched"
"""Any path that is not a route, and any route with a wrong method."""

_VARIABLE: Final = re.compile(r"<(?:[^<>]*:)?([^<>:]+)>")


@cache
def _route(rule: str) -> str:
    """A rule of the router in the form that documents use: `/x/{name}`."""
    return _VARIABLE.sub(r"{\1}", rule)


class Traffic:
    """Requests of one application, by method, route (`/prices/latest/{symbol}`) and status.

    A request is not counted if its client leaves before the answer. The time of a stream ends when it begins.
    """

    def __init__(self, connection_errors: ConnectionErrors) -> None:
        self._connection_errors = connection_errors
        self._in_flight = 0
        self._answered: Counter[tuple[str, str, str]] = Counter()
        self._seconds: dict[tuple[str, str], Histogram] = {}

    def watch(self, app: Quart) -> None:
        """Count every request of the application.

        A function that runs before each request must set `g.began`, on Trio's clock.
        """
        app.before_request(self._begin)
        app.after_request(self._answer)
        app.teardown_request(self._end)

    async def _begin(self) -> None:
        self._in_flight += 1

    async def _answer(self, response: Response) -> Response:
        method = request.method if request.method in METHODS else OTHER
        rule = request.url_rule
        route = UNMATCHED if rule is None else _route(rule.rule)
        self._answered[method, route, str(response.status_code)] += 1
        seconds = self._seconds.setdefault((method, route), Histogram())
        seconds.observe(trio.current_time() - g.began)
        return response

    async def _end(self, _: BaseException | None) -> None:
        if "began" in g:  # otherwise its client left before that
            self._in_flight -= 1

    def families(self) -> Iterable[Metric]:
        """The numbers in Prometheus' form."""
        yield CounterMetricFamily(
            "marketflow_http_connection_errors",
            "Connections of clients that ended because of an error, logged as `connection failed`.",
            self._connection_errors.count,
        )
        yield GaugeMetricFamily(
            "http_requests_in_flight", "Requests without an answer yet, including this one.", self._in_flight
        )
        answered = CounterMetricFamily(
            "http_requests", "Requests answered.", labels=["method", "route", "status"]
        )
        for labels, count in self._answered.items():
            answered.add_metric(labels, count)
        yield answered
        seconds = HistogramMetricFamily(
            "http_request_duration_seconds",
            "Time from the head of a request to its answer; for a stream, to its beginning.",
            labels=["method", "route"],
        )
        for of_route, histogram in self._seconds.items():
            found = histogram.read()
            seconds.add_metric(of_route, buckets_of(found), found.sum)
        yield seconds
