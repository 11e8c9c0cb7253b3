"""/prices and /symbols."""

from __future__ import annotations

from quart import Blueprint, request
from quart.wrappers import Response

from marketflow.adapters.http.parameters import parameters, with_exchange
from marketflow.adapters.http.responses import as_json
from marketflow.app.interface import PriceQuestions, StatisticKind

DEFAULT_PERIOD = "1m"


def price_routes(prices: PriceQuestions) -> Blueprint:
    """The routes for current and past prices."""
    routes = Blueprint("prices", __name__)

    @routes.get("/symbols")
    async def symbols() -> Response:
        parameters(request.args.items(multi=True), ())
        return as_json({"symbols": prices.symbols})

    @routes.get("/prices/latest")
    async def latest_of_all() -> Response:
        given = parameters(request.args.items(multi=True), ("symbol", "exchange"))
        return as_json({"prices": await prices.latest_of_all(given.get("symbol"), given.get("exchange"))})

    @routes.get("/prices/latest/<symbol>")
    @routes.get("/prices/latest/<exchange>/<symbol>")
    async def latest(symbol: str, exchange: str | None = None) -> Response:
        asked, _ = with_exchange(request.args.items(multi=True), exchange, ())
        return as_json(await prices.latest(symbol, asked))

    @routes.get("/prices/aggregate/<symbol>")
    @routes.get("/prices/aggregate/<exchange>/<symbol>")
    async def aggregate(symbol: str, exchange: str | None = None) -> Response:
        asked, given = with_exchange(request.args.items(multi=True), exchange, ("period",))
        return as_json(await prices.summary(symbol, asked, given.get("period", DEFAULT_PERIOD)))

    _statistic_routes(routes, prices, "highest")
    _statistic_routes(routes, prices, "lowest")
    _statistic_routes(routes, prices, "average")
    return routes


def _statistic_routes(routes: Blueprint, prices: PriceQuestions, kind: StatisticKind) -> None:
    async def statistics() -> Response:
        given = parameters(request.args.items(multi=True), ("symbol", "exchange", "period"))
        period = given.get("period", DEFAULT_PERIOD)
        found = await prices.statistics(kind, given.get("symbol"), given.get("exchange"), period)
        return as_json({"prices": found})

    async def statistic(symbol: str, exchange: str | None = None) -> Response:
        asked, given = with_exchange(request.args.items(multi=True), exchange, ("period",))
        return as_json(await prices.statistic(kind, symbol, asked, given.get("period", DEFAULT_PERIOD)))

    routes.add_url_rule(f"/prices/{kind}", f"{kind}_of_all", statistics)
    routes.add_url_rule(f"/prices/{kind}/<symbol>", kind, statistic)
    routes.add_url_rule(f"/prices/{kind}/<exchange>/<symbol>", kind, statistic)
