"""Frames of Binance."""

from marketflow.adapters.exchange.venues.venue import ALIVE, Leave, Rejected, Subscribed, Trade, Trades
from venue_samples.sample import Sample

RAW = b'{"e":"trade","E":2,"s":"BTCUSDT","t":5,"p":"1.5","q":"2","T":1795343351548,"m":false,"M":true}'

SAMPLE = Sample(
    frame=(
        b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1795343351550,"s":"BTCUSDT","t":60276726,'
        b'"p":"100150.75000000","q":"0.00648000","T":1795343351548,"m":true,"M":true}}'
    ),
    trade=Trade("BTCUSDT", 100150.75, 1795343351548, 0.00648, "sell", 60276726),
    at=("data",),
    price="p",
    volume="q",
    side="m",
    time="T",
    id="t",
    sides={True: "sell", False: "buy"},
    other_units=(1795343351, 1795343351548000),
    ids={0: 0, "60276727": 60276727},
    meanings={
        "trade without the envelope": (RAW, Trades(b'{"data":' + RAW + b"}")),
        "acknowledgement": (b'{"result":null,"id":7}', Subscribed((), 7)),
        "error of a request": (
            b'{"error":{"code":2,"msg":"Invalid request: unknown stream"},"id":7}',
            Rejected("Invalid request: unknown stream", (), 7),
        ),
        "error of a stream": (
            b'{"code":2,"msg":"Invalid request: unknown stream xbtusdt@trade","id":7}',
            Rejected("Invalid request: unknown stream xbtusdt@trade", ("XBTUSDT",), 7),
        ),
        "error of one of several streams": (
            b'{"code":2,"msg":"Invalid request: btcusdt@trade, xbtusdt@trade","id":7}',
            Rejected("Invalid request: btcusdt@trade, xbtusdt@trade", (), 7),
        ),
        "error without a request": (
            b'{"code":3,"msg":"Invalid JSON: expected value"}',
            Rejected("Invalid JSON: expected value"),
        ),
        "shutdown": (b'{"e":"serverShutdown","E":1795343351548}', Leave("server shutdown")),
        "shutdown in a stream": (
            b'{"stream":"btcusdt@trade","data":{"e":"serverShutdown","E":1795343351548}}',
            Leave("server shutdown"),
        ),
        "other event": (
            b'{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","s":"BTCUSDT","a":5,"p":"1.5","q":"2"}}',
            ALIVE,
        ),
    },
    request=(
        ("BTCUSDT", "ethusdt"),
        {"method": "SUBSCRIBE", "params": ["btcusdt@trade", "ethusdt@trade"], "id": 7},
    ),
)
