"""Frames of Coinbase Exchange."""

from marketflow.adapters.exchange.venues.venue import ALIVE, Notice, Rejected, Subscribed, Trade
from venue_samples.sample import Sample

SAMPLE = Sample(
    frame=(
        b'{"type":"match","trade_id":1081862675,"maker_order_id":"a714a99e","taker_order_id":"3560b5fa",'
        b'"side":"sell","size":"0.00000001","price":"80691.53","product_id":"BTC-USD",'
        b'"sequence":134905860111,"time":"2026-11-22T10:29:11.548335Z"}'
    ),
    # The maker sold, so the taker bought.
    trade=Trade("BTC-USD", 80691.53, 1795343351548, 0.00000001, "buy", 1081862675),
    at=(),
    price="price",
    volume="size",
    side="side",
    time="time",
    id="trade_id",
    sides={"sell": "buy", "buy": "sell"},
    times={
        "2026-11-22T10:29:11Z": 1795343351000,
        "2026-11-22T10:29:11.5Z": 1795343351500,
        "2026-11-22T10:29:11.999999999Z": 1795343351999,
        "2026-11-22T11:29:11.548335+01:00": 1795343351548,
    },
    ids={"1081862676": 1081862676},
    meanings={
        "trade before the subscription": (
            (
                b'{"type":"last_match","trade_id":5,"side":"sell","size":"1","price":"2.5",'
                b'"product_id":"BTC-USD","sequence":9,"time":"2026-11-22T10:29:11.548335Z"}'
            ),
            ALIVE,
        ),
        "acknowledgement": (
            (
                b'{"type":"subscriptions","channels":[{"name":"heartbeat","product_ids":["BTC-USD"]},'
                b'{"name":"matches","product_ids":["BTC-USD","ETH-USD"],"account_ids":null}]}'
            ),
            Subscribed(("BTC-USD", "ETH-USD")),
        ),
        "no subscription": (b'{"type":"subscriptions","channels":[]}', ALIVE),
        "rejection": (
            b'{"type":"error","message":"Failed to subscribe","reason":"XBT-USD is not a valid product"}',
            Rejected("Failed to subscribe: XBT-USD is not a valid product", ("XBT-USD",)),
        ),
        "rejection without a symbol": (
            b'{"type":"error","message":"Failed to subscribe"}',
            Rejected("Failed to subscribe"),
        ),
        "other error": (b'{"type":"error","message":"Malformed JSON"}', Notice("Malformed JSON")),
        "heartbeat": (
            (
                b'{"type":"heartbeat","last_trade_id":20,"product_id":"BTC-USD","sequence":90,'
                b'"time":"2026-11-22T10:29:11.548335Z"}'
            ),
            ALIVE,
        ),
    },
    request=(
        ("BTC-USD", "ETH-USD"),
        {
            "type": "subscribe",
            "channels": [
                {"name": "matches", "product_ids": ["BTC-USD", "ETH-USD"]},
                {"name": "heartbeat", "product_ids": ["BTC-USD", "ETH-USD"]},
            ],
        },
    ),
)
