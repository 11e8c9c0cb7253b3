"""Frames of Bitstamp."""

from marketflow.adapters.exchange.venues.venue import ALIVE, Leave, Rejected, Subscribed, Trade
from venue_samples.sample import Sample

SAMPLE = Sample(
    frame=(
        b'{"data":{"id":216000477,"timestamp":"1795343351","amount":0.0792,"amount_str":"0.07920000",'
        b'"price":3805.44,"price_str":"3805.44","type":0,"microtimestamp":"1795343351548999",'
        b'"buy_order_id":1443875737346049,"sell_order_id":1443875731320832},'
        b'"channel":"live_trades_ethusd","event":"trade"}'
    ),
    trade=Trade("ethusd", 3805.44, 1795343351548, 0.0792, "buy", 216000477),
    at=("data",),
    price="price_str",
    volume="amount_str",
    side="type",
    time="microtimestamp",
    id="id",
    sides={0: "buy", 1: "sell"},
    other_units=("1795343351", "1795343351548", "1795343351548000000"),
    times={1795343351549000: 1795343351549},
    ids={"216000478": 216000478},
    meanings={
        "acknowledgement": (
            b'{"event":"bts:subscription_succeeded","channel":"live_trades_ethusd","data":{}}',
            Subscribed(("ethusd",)),
        ),
        "acknowledgement of another channel": (
            b'{"event":"bts:subscription_succeeded","channel":"order_book_ethusd","data":{}}',
            ALIVE,
        ),
        "rejection": (
            (
                b'{"event":"bts:error","channel":"live_trades_xbtusd","data":{"code":null,'
                b'"message":"Bad subscription string."}}'
            ),
            Rejected("Bad subscription string.", ("xbtusd",)),
        ),
        "rejection without a symbol": (
            b'{"event":"bts:error","channel":"","data":{"code":4009,"message":"Unauthorized."}}',
            Rejected("Unauthorized."),
        ),
        "heartbeat": (b'{"event":"bts:heartbeat","channel":"","data":{"status":"success"}}', ALIVE),
        "request to connect again": (
            b'{"event":"bts:request_reconnect","channel":"","data":""}',
            Leave("reconnect requested"),
        ),
        "other trade": (
            b'{"data":{"id":5,"price_str":"1"},"channel":"live_orders_ethusd","event":"trade"}',
            ALIVE,
        ),
    },
    request=(("ETHUSD",), {"event": "bts:subscribe", "data": {"channel": "live_trades_ethusd"}}),
)
