"""Example answers, made by the same classes as real answers."""

from __future__ import annotations

from typing import Any, Final

import attrs

from marketflow import __version__
from marketflow.adapters.http.kinds import KINDS
from marketflow.adapters.http.responses import encoded, plain
from marketflow.app.answers import Candle, Candles, Latest, PriceAt, Statistic, Summary
from marketflow.app.interface import (
    ClusterState,
    Counters,
    ExchangeHealth,
    ExchangeState,
    HealthReport,
    NodeReport,
    NodeState,
    Ownership,
    StoreHealth,
)

_NOON: Final = 1_795_348_800_000


def examples(symbol: str, exchange: str, *, in_cluster: bool = False) -> dict[str, Any]:
    """An example of each kind of answer, by the name of its schema."""
    latest = Latest(symbol, exchange, 100150.75492142327, _NOON - 51, "redis", 0.0125)
    price_at = PriceAt(symbol, exchange, 100150.75492142327, _NOON - 51, _NOON, "exact", "redis")
    statistic = Statistic(symbol, exchange, "1m", 100893.4, 2994, _NOON - 60_000, _NOON, "redis")
    summary = Summary(
        symbol=symbol,
        exchange=None,
        period="5m",
        average_price=99871.23,
        min_price=98012.5,
        max_price=100893.4,
        open_price=99120.0,
        close_price=100150.75492142327,
        updates=14970,
        volume=421.5,
        quote_volume=42_097_734.0,
        buy_volume=220.25,
        sell_volume=201.25,
        volume_updates=14970,
        vwap=99876.0,
        start=_NOON - 300_000,
        end=_NOON,
        source="redis",
    )
    candle = Candle(
        start=_NOON - 60_000,
        end=_NOON,
        open=99120.0,
        high=100893.4,
        low=99012.5,
        close=100150.75492142327,
        average=99871.23,
        updates=598,
        volume=16.5,
        quote_volume=1_647_863.25,
        buy_volume=9.25,
        sell_volume=7.25,
        volume_updates=598,
        vwap=99870.5,
        closed=True,
    )
    counters = Counters(18_002, 18_000, {"malformed": 2}, 17_985, 0, {}, 15)
    health = HealthReport(
        status="ok",
        mode="live",
        version=__version__,
        uptime=360.5,
        redis=StoreHealth("up", _NOON - 360_000),
        postgres=StoreHealth("up", _NOON - 359_000),
        exchanges={exchange: ExchangeHealth("connected", 0.04, 1, counters)},
        updates=counters,
    )
    if in_cluster:
        health = NodeReport(
            **attrs.asdict(health, recurse=False),
            node="ingest-1",
            role="ingest",
            cluster=ClusterState(
                {"ingest-1": NodeState("ingest", __version__, "http://10.0.0.1:8080", 0.3)},
                {exchange: Ownership("ingest-1", 3, _NOON - 200_000)},
            ),
        )
    kind = KINDS["unknown-symbol"].explanation
    return {
        "Latest": plain(latest),
        "LatestList": plain({"prices": [latest]}),
        "PriceAt": plain(price_at),
        "Statistic": plain(statistic),
        "StatisticList": plain({"prices": [statistic]}),
        "Summary": plain(summary),
        "SummaryList": plain({"prices": [summary]}),
        "Candles": plain(Candles(symbol, None, "1m", [candle], None)),
        "Event": {"event": "price", "id": f"{_NOON}000", "data": encoded(latest).decode()},
        "Metrics": f'marketflow_updates_received_total{{exchange="{exchange}"}} 18002.0\n',
        "Symbols": {"symbols": [symbol]},
        "Exchanges": plain({"exchanges": [ExchangeState(exchange, "live", "connected")]}),
        "ModeState": {"mode": "live", "changed": False},
        "HealthReport": plain(health),
        "Probe": {"status": "ok"},
        "ProblemKind": kind,
        "ProblemKinds": {"problems": [kind]},
    }
