"""Frames of Bybit."""

from marketflow.adapters.exchange.venues.venue import ALIVE, Notice, Rejected, Subscribed, Trade
from venue_samples.sample import Sample

SAMPLE = Sample(
    frame=(
        b'{"topic":"publicTrade.BTCUSDT","ts":1795343351550,"type":"snapshot",'
        b'"data":[{"i":"2290000001227213949","T":1795343351548,"p":"82680","v":"0.001185","S":"Buy",'
        b'"seq":115115351336,"s":"BTCUSDT","BT":false,"RPI":false}]}'
    ),
    trade=Trade("BTCUSDT", 82680.0, 1795343351548, 0.001185, "buy", 2290000001227213949),
    at=("data", 0),
    price="p",
    volume="v",
    side="S",
    time="T",
    id="i",
    sides={"Buy": "buy", "Sell": "sell"},
    other_units=(1795343351, 1795343351548000),
    ids={"20f43950-d8dd-5b31-9112-a178eb6023af": "20f43950-d8dd-5b31-9112-a178eb6023af"},
    meanings={
        "acknowledgement": (
            b'{"success":true,"ret_msg":"","conn_id":"cf71cb32","req_id":"7","op":"subscribe"}',
            Subscribed((), 7),
        ),
        "rejection": (
            (
                b'{"success":false,"ret_msg":"error:handler not found,topic:publicTrade.XBTUSDT",'
                b'"conn_id":"cf71cb32","req_id":"7","op":"subscribe"}'
            ),
            Rejected("error:handler not found,topic:publicTrade.XBTUSDT", ("XBTUSDT",), 7),
        ),
        "rejection without a symbol": (
            b'{"success":false,"ret_msg":"Params Error","conn_id":"cf71cb32","req_id":"","op":"subscribe"}',
            Rejected("Params Error"),
        ),
        "repeated subscription": (
            (
                b'{"success":false,"ret_msg":"error:already subscribed,topic:publicTrade.BTCUSDT",'
                b'"conn_id":"cf71cb32","req_id":"7","op":"subscribe"}'
            ),
            Subscribed(("BTCUSDT",), 7, others_refused=True),
        ),
        "error without a request": (
            b'{"success":false,"ret_msg":"Params Error","conn_id":"cf71cb32","op":""}',
            Notice("Params Error"),
        ),
        "pong": (b'{"success":true,"ret_msg":"pong","conn_id":"cf71cb32","op":"ping"}', ALIVE),
        "pong of another form": (b'{"op":"pong","args":["1795343351548"],"conn_id":"cf71cb32"}', ALIVE),
        "other topic": (b'{"topic":"tickers.BTCUSDT","ts":5,"type":"snapshot","data":{}}', ALIVE),
    },
    request=(
        ("BTCUSDT", "ETHUSDT"),
        {"req_id": "7", "op": "subscribe", "args": ["publicTrade.BTCUSDT", "publicTrade.ETHUSDT"]},
    ),
)
