"""/candles."""

from __future__ import annotations

from typing import Final

import attrs
from quart import Blueprint, request
from quart.wrappers import Response

from marketflow.adapters.http.parameters import (
    check_order,
    choice,
    integer,
    optional_timestamp,
    with_exchange,
)
from marketflow.adapters.http.responses import as_json
from marketflow.app.interface import PriceQuestions
from marketflow.domain.periods import CANDLE_INTERVALS

DEFAULT_INTERVAL: Final = "1m"
DEFAULT_LIMIT: Final = 500
LARGEST_LIMIT: Final = 1000
PARAMETERS: Final = ("interval", "start", "end", "limit")


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
        page = attrs.asdict(await prices.candles(symbol.upper(), asked, interval, start, end, limit))
        if page["known_from"] is None:
            del page["known_from"]  # The field is in an answer only if it has a value.
        return as_json(page)

    return routes
