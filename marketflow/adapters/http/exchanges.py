"""/exchanges."""

from __future__ import annotations

from quart import Blueprint, request
from quart.wrappers import Response

from marketflow.adapters.http.parameters import parameters
from marketflow.adapters.http.responses import as_json
from marketflow.app.interface import HealthQuestions


def exchange_routes(health: HealthQuestions) -> Blueprint:
    """The route that lists the exchanges."""
    routes = Blueprint("exchanges", __name__)

    @routes.get("/exchanges")
    async def exchanges() -> Response:
        parameters(request.args.items(multi=True), ())
        return as_json({"exchanges": health.exchange_list()})

    return routes
