"""/prices and /symbols."""

from __future__ import annotations

from typing import Final

from quart import Blueprint, request
from quart.wrappers import Response

from marketflow.adapters.http.parameters import (
    BadParameter,
    asked_names,
    asked_range,
    parameters,
    timestamp,
    with_exchange,
)
from marketflow.adapters.http.responses import as_json
from marketflow.adapters.http.tables import FORMAT, as_list, wants_csv
from marketflow.app.answers import Latest, Statistic, Summary
from marketflow.app.interface import PriceQuestions, StatisticKind

RANGE: Final = ("period", "start", "end")
"""The parameters that say which span is asked for."""


def price_routes(prices: PriceQuestions) -> Blueprint:
    """The routes for current and past prices."""
    routes = Blueprint("prices", __name__)

    @routes.get("/symbols")
    async def symbols() -> Response:
        given = parameters(request.args.items(multi=True), (FORMAT,))
        return as_list("symbols", prices.symbols, ("symbol",), csv=wants_csv(given))

    @routes.get("/prices/latest")
    async def latest_of_all() -> Response:
        given = parameters(request.args.items(multi=True), ("symbol", "exchange", FORMAT))
        csv = wants_csv(given)
        found = await prices.latest_of_all(*asked_names(given))
        return as_list("prices", found, Latest, csv=csv)

    @routes.get("/prices/latest/<symbol>")
    @routes.get("/prices/latest/<exchange>/<symbol>")
    async def latest(symbol: str, exchange: str | None = None) -> Response:
        asked, _ = with_exchange(request.args.items(multi=True), exchange, ())
        return as_json(await prices.latest(symbol.upper(), asked))

    @routes.get("/prices/at/<symbol>")
    @routes.get("/prices/at/<exchange>/<symbol>")
    async def at(symbol: str, exchange: str | None = None) -> Response:
        asked, given = with_exchange(request.args.items(multi=True), exchange, ("time",))
        if "time" not in given:
            raise BadParameter("bad-time", "the query parameter `time` is needed")
        return as_json(await prices.at(symbol.upper(), asked, timestamp("time", given["time"])))

    @routes.get("/prices/aggregate")
    async def aggregates() -> Response:
        given = parameters(request.args.items(multi=True), ("symbol", "exchange", *RANGE, FORMAT))
        csv = wants_csv(given)
        found = await prices.summaries(*asked_names(given), asked_range(given))
        return as_list("prices", found, Summary, csv=csv)

    @routes.get("/prices/aggregate/<symbol>")
    @routes.get("/prices/aggregate/<exchange>/<symbol>")
    async def aggregate(symbol: str, exchange: str | None = None) -> Response:
        asked, given = with_exchange(request.args.items(multi=True), exchange, RANGE)
        return as_json(await prices.summary(symbol.upper(), asked, asked_range(given)))

    _statistic_routes(routes, prices, "highest")
    _statistic_routes(routes, prices, "lowest")
    _statistic_routes(routes, prices, "average")
    return routes


def _statistic_routes(routes: Blueprint, prices: PriceQuestions, kind: StatisticKind) -> None:
    async def statistics() -> Response:
        given = parameters(request.args.items(multi=True), ("symbol", "exchange", *RANGE, FORMAT))
        csv = wants_csv(given)
        found = await prices.statistics(kind, *asked_names(given), asked_range(given))
        return as_list("prices", found, Statistic, csv=csv)

    async def statistic(symbol: str, exchange: str | None = None) -> Response:
        asked, given = with_exchange(request.args.items(multi=True), exchange, RANGE)
        return as_json(await prices.statistic(kind, symbol.upper(), asked, asked_range(given)))

    routes.add_url_rule(f"/prices/{kind}", f"{kind}_of_all", statistics)
    routes.add_url_rule(f"/prices/{kind}/<symbol>", kind, statistic)
    routes.add_url_rule(f"/prices/{kind}/<exchange>/<symbol>", kind, statistic)
