"""Frames of Bitfinex."""

from marketflow.adapters.exchange.venues.venue import (
    ALIVE,
    Leave,
    Notice,
    Rejected,
    Subscribed,
    Trade,
    Trades,
)
from venue_samples.sample import Sample

SAMPLE = Sample(
    before=(
        b'{"event":"info","version":2,"serverId":"083bd8d4","platform":{"status":1}}',
        b'{"event":"subscribed","channel":"trades","chanId":18788,"symbol":"tBTCUSD","pair":"BTCUSD"}',
    ),
    frame=b'[18788,"te",[5690221202,1795343351548,-0.01925285,102560.5]]',
    trade=Trade("tBTCUSD", 102560.5, 1795343351548, 0.01925285, "sell", 5690221202),
    at=(2,),
    price=3,
    volume=2,
    side=None,
    time=1,
    id=0,
    other_units=(1795343351, 1795343351548000),
    ids={"5690221203": 5690221203},
    meanings={
        "the same trade again": (b'[18788,"tu",[5690221202,1795343351548,-0.01925285,102560.5]]', ALIVE),
        "snapshot": (b"[18788,[[5690221201,1795343351547,0.5,102560],[5690221200,1,-0.5,102560]]]", ALIVE),
        "heartbeat": (b'[18788,"hb"]', ALIVE),
        "trade of a channel that is not known": (
            b'[5,"te",[5690221202,1795343351548,-0.01925285,102560.5]]',
            Trades(b'[5,"te",[5690221202,1795343351548,-0.01925285,102560.5]]'),
        ),
        "acknowledgement": (
            b'{"event":"subscribed","channel":"trades","chanId":9,"symbol":"tETHUSD","pair":"ETHUSD"}',
            Subscribed(("tETHUSD",)),
        ),
        "acknowledgement without a channel": (
            b'{"event":"subscribed","channel":"trades","symbol":"tETHUSD"}',
            Notice("a subscription that was not expected"),
        ),
        "rejection": (
            (
                b'{"event":"error","msg":"symbol: invalid","code":10300,"channel":"trades",'
                b'"symbol":"tXBTUSD","pair":"XBTUSD"}'
            ),
            Rejected("symbol: invalid", ("tXBTUSD",)),
        ),
        "repeated subscription": (
            b'{"event":"error","msg":"subscribe: dup","code":10301,"channel":"trades","symbol":"tBTCUSD"}',
            Subscribed(("tBTCUSD",)),
        ),
        "other error": (b'{"event":"error","msg":"ERR_RATE_LIMIT","code":11010}', Notice("ERR_RATE_LIMIT")),
        "request to connect again": (
            b'{"event":"info","code":20051,"msg":"Stopping. Please try to reconnect"}',
            Leave("reconnect requested"),
        ),
        "maintenance": (b'{"event":"info","code":20060,"msg":"Maintenance"}', Leave("maintenance")),
        "maintenance at the start": (
            b'{"event":"info","version":2,"platform":{"status":0}}',
            Notice("maintenance"),
        ),
        "pong": (b'{"event":"pong","ts":1795343351548,"cid":8}', ALIVE),
    },
    request=(("tBTCUSD",), {"event": "subscribe", "channel": "trades", "symbol": "tBTCUSD"}),
)
