"""Frames of OKX."""

from marketflow.adapters.exchange.venues.venue import ALIVE, Leave, Notice, Rejected, Subscribed, Trade
from venue_samples.sample import Sample

SAMPLE = Sample(
    frame=(
        b'{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT",'
        b'"tradeId":"1051102132","px":"78808.8","sz":"0.00504905","side":"sell","ts":"1795343351548",'
        b'"count":"3","seqId":80559459948}]}'
    ),
    trade=Trade("BTC-USDT", 78808.8, 1795343351548, 0.00504905, "sell", 1051102132),
    at=("data", 0),
    price="px",
    volume="sz",
    side="side",
    time="ts",
    id="tradeId",
    sides={"buy": "buy", "sell": "sell"},
    other_units=("1795343351", "1795343351548000"),
    times={1795343351549: 1795343351549},
    ids={5: 5, "a5": "a5"},
    meanings={
        "pong": (b"pong", ALIVE),
        "acknowledgement": (
            b'{"id":"7","event":"subscribe","arg":{"channel":"trades","instId":"BTC-USDT"},"connId":"a4d3"}',
            Subscribed(("BTC-USDT",), 7),
        ),
        "acknowledgement without a request": (
            b'{"event":"subscribe","arg":{"channel":"trades","instId":"BTC-USDT"}}',
            Subscribed(("BTC-USDT",)),
        ),
        "acknowledgement with the argument first": (
            b'{"arg":{"channel":"trades","instId":"BTC-USDT"},"event":"subscribe"}',
            Subscribed(("BTC-USDT",)),
        ),
        "rejection": (
            (
                b'{"id":"7","event":"error","code":"60018","msg":"Wrong URL or channel:trades,'
                b'instId:XBT-USDT doesn\'t exist. Please use the correct URL.","connId":"a4d3"}'
            ),
            Rejected(
                "Wrong URL or channel:trades,instId:XBT-USDT doesn't exist. Please use the correct URL.",
                ("XBT-USDT",),
                7,
            ),
        ),
        "rejection without a symbol": (
            b'{"event":"error","code":"60012","msg":"Illegal request"}',
            Rejected("Illegal request"),
        ),
        "upgrade": (
            b'{"event":"notice","code":"64008","msg":"The connection will soon be closed.","connId":"a4"}',
            Leave("The connection will soon be closed."),
        ),
        "other notice": (b'{"event":"notice","code":"1","msg":"Hello"}', Notice("Hello")),
        "count of connections": (
            b'{"event":"channel-conn-count","channel":"trades","connCount":"2","connId":"a4d3"}',
            ALIVE,
        ),
        "other channel": (b'{"arg":{"channel":"tickers","instId":"BTC-USDT"},"data":[{"last":"1"}]}', ALIVE),
    },
    request=(
        ("BTC-USDT", "ETH-USDT"),
        {
            "id": "7",
            "op": "subscribe",
            "args": [
                {"channel": "trades", "instId": "BTC-USDT"},
                {"channel": "trades", "instId": "ETH-USDT"},
            ],
        },
    ),
)
