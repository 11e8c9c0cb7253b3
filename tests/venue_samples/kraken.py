"""Frames of Kraken."""

from marketflow.adapters.exchange.venues.venue import ALIVE, Leave, Notice, Rejected, Subscribed, Trade
from venue_samples.sample import Sample

SAMPLE = Sample(
    frame=(
        b'{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy","price":77313.3,'
        b'"qty":0.0084064,"ord_type":"limit","trade_id":107612614,'
        b'"timestamp":"2026-11-22T10:29:11.548634Z"}]}'
    ),
    trade=Trade("BTC/USD", 77313.3, 1795343351548, 0.0084064, "buy", 107612614),
    at=("data", 0),
    price="price",
    volume="qty",
    side="side",
    time="timestamp",
    id="trade_id",
    sides={"buy": "buy", "sell": "sell"},
    times={
        "2026-11-22T10:29:11Z": 1795343351000,
        "2026-11-22T10:29:11.548634123Z": 1795343351548,
        "2026-11-22T10:29:11.999999999Z": 1795343351999,
        "1969-12-31T23:59:59.9995Z": -1,
    },
    ids={"107612615": 107612615},
    meanings={
        "snapshot": (
            (
                b'{"channel":"trade","type":"snapshot","data":[{"symbol":"BTC/USD","side":"buy","price":1.5,'
                b'"qty":2,"ord_type":"limit","trade_id":5,"timestamp":"2026-11-22T10:29:11.548634Z"}]}'
            ),
            ALIVE,
        ),
        "acknowledgement": (
            (
                b'{"method":"subscribe","req_id":7,"result":{"channel":"trade","snapshot":false,'
                b'"symbol":"BTC/USD"},"success":true,"time_in":"2026-11-22T10:29:11.548634Z"}'
            ),
            Subscribed(("BTC/USD",), 7),
        ),
        "rejection": (
            (
                b'{"error":"Currency pair not supported XBT/EUR","method":"subscribe","req_id":7,'
                b'"success":false,"symbol":"XBT/EUR"}'
            ),
            Rejected("Currency pair not supported XBT/EUR", ("XBT/EUR",), 7),
        ),
        "error without a request": (
            b'{"error":"Malformed request","success":false,"time_in":"2026-11-22T10:29:11.548634Z"}',
            Notice("Malformed request"),
        ),
        "heartbeat": (b'{"channel":"heartbeat"}', ALIVE),
        "pong": (b'{"method":"pong","req_id":8,"time_in":"2026-11-22T10:29:11.548634Z"}', ALIVE),
        "status": (
            b'{"channel":"status","type":"update","data":[{"api_version":"v2","system":"online"}]}',
            ALIVE,
        ),
        "maintenance": (
            b'{"channel":"status","type":"update","data":[{"api_version":"v2","system":"maintenance"}]}',
            Leave("maintenance"),
        ),
    },
    request=(
        ("BTC/USD", "ETH/USD"),
        {
            "method": "subscribe",
            "params": {"channel": "trade", "symbol": ["BTC/USD", "ETH/USD"], "snapshot": False},
            "req_id": 7,
        },
    ),
)
