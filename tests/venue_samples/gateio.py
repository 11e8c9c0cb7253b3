"""Frames of Gate."""

from marketflow.adapters.exchange.venues.venue import ALIVE, Notice, Rejected, Subscribed, Trade
from venue_samples.sample import Sample

SAMPLE = Sample(
    frame=(
        b'{"time":1795343351,"time_ms":1795343351550,"channel":"spot.trades","event":"update",'
        b'"result":{"id":217831625,"create_time":1795343351,"create_time_ms":"1795343351548.208000",'
        b'"side":"sell","currency_pair":"BTC_USDT","amount":"0.000021","price":"77474"}}'
    ),
    trade=Trade("BTC_USDT", 77474.0, 1795343351548, 0.000021, "sell", 217831625),
    at=("result",),
    price="price",
    volume="amount",
    side="side",
    time="create_time_ms",
    id="id",
    sides={"buy": "buy", "sell": "sell"},
    other_units=("1795343351", "1795343351.548", "1795343351548208"),
    times={
        "1795343351548.999000": 1795343351548,
        "1795343351548.999999": 1795343351548,
        "1795343351549": 1795343351549,
        1795343351549.5: 1795343351549,
    },
    ids={"217831626": 217831626},
    meanings={
        "acknowledgement": (
            (
                b'{"time":1795343351,"time_ms":1795343351550,"id":7,"channel":"spot.trades",'
                b'"event":"subscribe","result":{"status":"success"}}'
            ),
            Subscribed((), 7),
        ),
        "acknowledgement with an empty error": (
            (
                b'{"time":1795343351,"channel":"spot.trades","event":"subscribe","error":null,'
                b'"result":{"status":"success"}}'
            ),
            Subscribed(),
        ),
        "rejection": (
            (
                b'{"time":1795343351,"id":7,"channel":"spot.trades","event":"subscribe",'
                b'"error":{"code":2,"message":"unknown currency pair XBT_USDT"},"result":null}'
            ),
            Rejected("unknown currency pair XBT_USDT", ("XBT_USDT",), 7),
        ),
        "rejection with a result": (
            (
                b'{"time":1795343351,"id":7,"channel":"spot.trades","event":"subscribe",'
                b'"error":{"code":2,"message":"busy"},"result":{"status":"success"}}'
            ),
            Rejected("busy", (), 7),
        ),
        "rejection without a symbol": (
            (
                b'{"time":1795343351,"channel":"spot.trades","event":"subscribe",'
                b'"error":{"code":1,"message":"invalid argument"},"result":{"status":"fail"}}'
            ),
            Rejected("invalid argument"),
        ),
        "pong": (b'{"time":1795343351,"channel":"spot.pong","event":"","error":null,"result":null}', ALIVE),
        "other error": (
            b'{"time":1795343351,"channel":"spot.ping","event":"","error":{"code":3,"message":"busy"}}',
            Notice("busy"),
        ),
        "other channel": (
            (
                b'{"time":1795343351,"channel":"spot.tickers","event":"update",'
                b'"result":{"currency_pair":"BTC_USDT","last":"1"}}'
            ),
            ALIVE,
        ),
    },
    request=(
        ("BTC_USDT",),
        {
            "time": 1795343351,
            "id": 7,
            "channel": "spot.trades",
            "event": "subscribe",
            "payload": ["BTC_USDT"],
        },
    ),
)
