"""/candles."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

from quart import Blueprint, request
from quart.wrappers import Response

from marketflow.adapters.http.parameters import (
    check_order,
    choice,
    integer,
    optional_timestamp,
    with_exchange,
)
from marketflow.adapters.http.tables import FORMAT, as_csv, in_json, wants_csv
from marketflow.app.answers import Candle, Candles
from marketflow.app.interface import PriceQuestions
from marketflow.domain.periods import CANDLE_INTERVALS

DEFAULT_INTERVAL: Final = "1m"
DEFAULT_LIMIT: Final = 500
LARGEST_LIMIT: Final = 1000
PARAMETERS: Final = ("interval", "start", "end", "limit", FORMAT)


def candle_routes(prices: PriceQuestions) -> Blueprint:
    """The routes that answer with candles."""
    routes = Blueprint("candles", __name__)

    @routes.get("/candles/<symbol>")
    @routes.get("/candles/<exchange>/<symbol>")
    async def candles(symbol: str, exchange: str | None = None) -> Response:
        asked, given = with_exchange(request.args.items(multi=True), exchange, PARAMETERS)
        interval = choice("interval", given.get("interval", DEFAULT_INTERVAL), CANDLE_INTERVALS)
        start = optional_timestamp("start", given.get("start"))
        end = optional_timestamp("end", given.get("end"))
        limit = integer("limit", given.get("limit", str(DEFAULT_LIMIT)), least=1, most=LARGEST_LIMIT)
        check_order(start, end)
        in_csv = wants_csv(given)
        page = await prices.candles(symbol.upper(), asked, interval, start, end, limit)
        return _as_csv(page) if in_csv else in_json(page)

    return routes


def _as_csv(page: Candles) -> Response:
    """The candles as lines. A header has the link to the following page, as RFC 8288 has it."""
    response = as_csv(page.candles, Candle)
    if page.next is not None:
        query = urlencode({**request.args, "start": page.next})
        response.headers["Link"] = f'<?{query}>; rel="next"'
    if page.known_from is not None:
        response.headers["X-Known-From"] = str(page.known_from)
    return response
