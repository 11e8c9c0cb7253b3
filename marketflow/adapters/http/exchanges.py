"""/exchanges."""

from __future__ import annotations

from quart import Blueprint, request
from quart.wrappers import Response

from marketflow.adapters.http.parameters import parameters
from marketflow.adapters.http.tables import FORMAT, as_list, wants_csv
from marketflow.app.interface import ExchangeState, HealthQuestions


def exchange_routes(health: HealthQuestions) -> Blueprint:
    """The route that lists the exchanges."""
    routes = Blueprint("exchanges", __name__)

    @routes.get("/exchanges")
    async def exchanges() -> Response:
        given = parameters(request.args.items(multi=True), (FORMAT,))
        return as_list("exchanges", health.exchange_list(), ExchangeState, csv=wants_csv(given))

    return routes
