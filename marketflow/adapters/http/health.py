"""/health, and the probes beside it."""

from __future__ import annotations

from http import HTTPStatus

from quart import Blueprint, request
from quart.wrappers import Response

from marketflow.adapters.http.parameters import parameters
from marketflow.adapters.http.problem import RETRY_SOON, unavailable
from marketflow.adapters.http.responses import as_json
from marketflow.app.interface import HealthQuestions


def health_routes(health: HealthQuestions) -> Blueprint:
    """The routes that report the health of the service."""
    routes = Blueprint("health", __name__)

    @routes.get("/health")
    async def report() -> Response:
        """The whole report, also if it is bad. The status says the same for probes that read no body."""
        parameters(request.args.items(multi=True), ())
        found = health.report()
        if found.status != "unavailable":
            return as_json(found)
        response = as_json(found, HTTPStatus.SERVICE_UNAVAILABLE)
        response.headers["Retry-After"] = str(RETRY_SOON)
        return response

    @routes.get("/health/live")
    async def live() -> Response:
        parameters(request.args.items(multi=True), ())
        if health.live:
            return as_json({"status": "ok"})
        return unavailable("not-live", "the service is beyond recovery", retry_after=RETRY_SOON)

    @routes.get("/health/ready")
    async def ready() -> Response:
        parameters(request.args.items(multi=True), ())
        if health.ready:
            return as_json({"status": "ok"})
        return unavailable("not-ready", "starting, stopping, or nothing can answer", retry_after=RETRY_SOON)

    return routes
