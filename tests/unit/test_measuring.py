from __future__ import annotations

import trio
from builders import World, until
from test_health import Line

from marketflow.app.stream.subscriptions import PriceStream
from marketflow.app.watch.health import Health
from marketflow.app.watch.measuring import Measuring


async def test_it_tells_what_the_parts_have_counted(autojump_clock):
    """The latencies are those of exactly the updates that it counts as cached."""
    world = World(interval=1_000, limit=50)
    live, off = Line("exchange1"), Line("test1")
    live.bugs = 3
    health = Health(
        feeds={"live": [live], "test": [off]},
        venues={},
        mode=lambda: "live",
        share=world.share.figures,
        redis=world.redis,
        postgres=world.postgres,
        clock=world.clock,
        stale_after=5.0,
        version="1.2.3",
    )
    stream = PriceStream(
        bars=world.bars,
        pairs=world.pairs,
        exchanges_of_mode=lambda: world.exchanges,
        check=lambda _symbol, _exchange: None,
        most_clients=2,
    )
    measuring = Measuring(
        health=health,
        share=world.share.figures,
        stream_clients=lambda: stream.clients,
    )
    nothing = measuring.measurements()
    assert not nothing.ready
    assert nothing.latency_seconds.count == nothing.flush_seconds.count == nothing.aggregates_written == 0
    async with world.running():
        health.serving = True
        world.send_one(1.0)
        world.send_one(2.0, symbol="ETHUSDT", exchange="exchange2")
        await trio.sleep(10)
        found = measuring.measurements()
        assert found.ready
        assert found.latency_seconds.count == found.health.updates.cached == 2
        assert found.flush_seconds.count >= 10
        assert (found.aggregates_written, found.aggregates_pending) == (2, 0)
        assert found.stream_clients == 0
        with stream.subscribed(None, None):
            assert measuring.measurements().stream_clients == 1
        assert found.feed_bugs == {"exchange1": 3, "test1": 0}
        assert found.pending_limits == dict.fromkeys(world.exchanges, 50)

        world.store.away = True
        world.send_one(1.0)
        await trio.sleep(0.5)
        assert measuring.measurements().aggregates_pending == 0, "it is open"
        await until(lambda: measuring.measurements().aggregates_pending == 1)
        world.store.away = False
        await until(lambda: measuring.measurements().aggregates_pending == 0)
        assert measuring.measurements().aggregates_written == 3

        world.store.refuses = lambda _: True
        world.send_one(1.0)
        await until(lambda: measuring.measurements().aggregates_refused == 1)
        assert measuring.measurements().aggregates_pending == 1
        world.store.refuses = lambda _: False
        await trio.sleep(61)
        assert measuring.measurements().aggregates_refused == 0
        assert measuring.measurements().aggregates_pending == 0
