"""The live stream of the whole service: what exchanges send comes out as events."""

from __future__ import annotations

from urllib.parse import urlsplit

import trio
from serving import running
from stream_clients import event_source
from traffic import Sent, lines, now


async def test_updates_come_out_as_they_went_in(settings, exchanges):
    """At a rate that a client can follow it gets each of them, as /prices/latest would tell it."""
    async with running(settings) as service:
        port = urlsplit("//" + service.client.address).port
        async with event_source(port, "/stream") as source:
            assert source.status == 200
            assert source.headers["content-type"].startswith("text/event-stream")
            with trio.fail_after(10):
                for n in range(5):
                    for name, exchange in exchanges.items():
                        sent = Sent(name, "BTCUSDT", 100_000 + n / 7, now())
                        await exchange.send(lines([sent]))
                        event = await source.price()
                        assert event.data == {
                            "symbol": "BTCUSDT",
                            "exchange": name,
                            "price": sent.price,
                            "timestamp": sent.timestamp,
                            "source": "memory",
                        }
