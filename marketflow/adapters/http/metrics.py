"""/metrics: what Prometheus asks for."""

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
"""The parameter, given any number of times, with which Prometheus' clients ask for some series only."""

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
        # There is no wait in here, so that all numbers are of the same moment.
        text = encode(registry.restricted_registry(names) if names else registry)
        return TrioResponse(text, content_type=content_type)

    return routes


def _registry(measuring: MeasurementQuestions, traffic: Traffic) -> CollectorRegistry:
    """A registry of our own: the library's is shared by the process, and tests serve several times in one."""
    registry = CollectorRegistry(auto_describe=True)
    registry.register(_ServiceCollector(measuring, traffic))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class _ServiceCollector(Collector):
    """Reads the measurements whenever Prometheus asks for them."""

    def __init__(self, measuring: MeasurementQuestions, traffic: Traffic) -> None:
        self._measuring = measuring
        self._traffic = traffic

    def collect(self) -> Iterable[Metric]:
        yield from families_of(self._measuring.measurements())
        yield from self._traffic.families()


def _offers(headers: Iterable[str]) -> str:
    """The formats that a client accepts, without those of an unknown version.

    The library fails on some, and would say of its answer that it is of that version.
    """
    offers = [offer for header in headers for offer in header.split(",")]
    return ",".join(offer for offer in offers if "version" not in offer or _KNOWN_VERSION.search(offer))
