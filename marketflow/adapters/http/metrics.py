"""/metrics, the endpoint that Prometheus scrapes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from quart import Blueprint, request
from quart.wrappers import Response
from quart_trio.wrappers import TrioResponse

from marketflow.adapters.http.families import families_of
from marketflow.adapters.http.parameters import parameters
from marketflow.adapters.http.traffic import Traffic
from marketflow.app.interface import MeasurementQuestions

NAME: Final = "name[]"
"""The parameter that selects series; it may be repeated. Prometheus' client libraries define it."""

_KNOWN_VERSION: Final = re.compile(r";\s*version=(?:0\.0\.1|0\.0\.4|1\.0\.0)\s*(?:;|$)")


def metric_routes(measuring: MeasurementQuestions, traffic: Traffic) -> Blueprint:
    """The route with all measurements. It also answers while the service starts and stops."""
    routes = Blueprint("metrics", __name__)
    registry = _registry(measuring, traffic)

    @routes.get("/metrics")
    async def metrics() -> Response:
        given = list(request.args.items(multi=True))
        parameters((pair for pair in given if pair[0] != NAME), (NAME,))
        names = [value for name, value in given if name == NAME]
        encode, content_type = choose_encoder(_offers(request.headers.getlist("Accept")))
        # No await here, so that all numbers are of the same moment.
        text = encode(registry.restricted_registry(names) if names else registry)
        return TrioResponse(text, content_type=content_type)

    return routes


def _registry(measuring: MeasurementQuestions, traffic: Traffic) -> CollectorRegistry:
    """A registry of our own: the library's default is global, and tests run several services in a process."""
    registry = CollectorRegistry(auto_describe=True)
    registry.register(_ServiceCollector(measuring, traffic))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class _ServiceCollector(Collector):
    """Reads the measurements at each scrape."""

    def __init__(self, measuring: MeasurementQuestions, traffic: Traffic) -> None:
        self._measuring = measuring
        self._traffic = traffic

    def collect(self) -> Iterable[Metric]:
        yield from families_of(self._measuring.measurements())
        yield from self._traffic.families()


def _offers(headers: Iterable[str]) -> str:
    """The formats that a client accepts, without formats of an unknown version.

    The library raises for some of these, and would label its answer with the unknown version.
    """
    offers = [offer for header in headers for offer in header.split(",")]
    return ",".join(offer for offer in offers if "version" not in offer or _KNOWN_VERSION.search(offer))
