"""Frames of KuCoin."""

from marketflow.adapters.exchange.venues.venue import (
    ALIVE,
    WELCOME,
    Notice,
    Rejected,
    Subscribed,
    Trade,
)
from venue_samples.sample import Sample

SAMPLE = Sample(
    frame=(
        b'{"type":"message","topic":"/market/match:BTC-USDT","subject":"trade.l3match",'
        b'"data":{"symbol":"BTC-USDT","side":"sell","type":"match","sequence":"1636276321894",'
        b'"size":"0.00001255","price":"24093.9","time":"1795343351548999990",'
        b'"tradeId":"62fade002e113d292303a18b"}}'
    ),
    trade=Trade("BTC-USDT", 24093.9, 1795343351548, 0.00001255, "sell", "62fade002e113d292303a18b"),
    at=("data",),
    price="price",
    volume="size",
    side="side",
    time="time",
    id="tradeId",
    sides={"buy": "buy", "sell": "sell"},
    other_units=("1795343351", "1795343351548", "1795343351548000", "1795343351548000000000"),
    times={1795343351549000000: 1795343351549},
    ids={"620000002011302923030180": "620000002011302923030180", 5: 5},
    meanings={
        "welcome": (b'{"id":"NSkIrWGB1s","type":"welcome"}', WELCOME),
        "acknowledgement": (b'{"id":"7","type":"ack"}', Subscribed((), 7)),
        "rejection": (
            b'{"id":"7","type":"error","code":404,"data":"topic /market/match:XBT-USDT is not found"}',
            Rejected("topic /market/match:XBT-USDT is not found", ("XBT-USDT",), 7),
        ),
        "rejection of one of several": (
            (
                b'{"id":"7","type":"error","code":404,'
                b'"data":"topic /market/match:BTC-USDT,XBT-USDT is not found"}'
            ),
            Rejected("topic /market/match:BTC-USDT,XBT-USDT is not found", (), 7),
        ),
        "rejection without a number": (
            b'{"type":"error","code":404,"data":"topic /market/match:XBT-USDT is not found"}',
            Rejected("topic /market/match:XBT-USDT is not found", ("XBT-USDT",)),
        ),
        "error without a request": (
            b'{"type":"error","code":401,"data":"token is expired"}',
            Notice("token is expired"),
        ),
        "pong": (b'{"id":"8","type":"pong","timestamp":1795343351548999}', ALIVE),
        "other topic": (
            (
                b'{"type":"message","topic":"/market/ticker:BTC-USDT","subject":"trade.ticker",'
                b'"data":{"price":"1"}}'
            ),
            ALIVE,
        ),
    },
    request=(
        ("BTC-USDT", "ETH-USDT"),
        {
            "id": "7",
            "type": "subscribe",
            "topic": "/market/match:BTC-USDT,ETH-USDT",
            "privateChannel": False,
            "response": True,
        },
    ),
)
