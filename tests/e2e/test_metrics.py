"""/metrics reports what happened: it adds up in every scrape, and agrees with /health."""

from __future__ import annotations

import random
from functools import partial

import attrs
import trio
from asking import adds_up, eventually, stored_rows
from exchange_server import ExchangeServer
from scraping import Scrape, scrape
from serving import Service, running
from stream_clients import event_source, web_socket
from traffic import NAMES, any_lines, lines, now

from marketflow.config import Settings
from marketflow.config.settings import RedisSettings
from marketflow.embedded import EmbeddedRedis

Exchanges = dict[str, ExchangeServer]

BAD = b'{"symbol":"BTCUSDT","price":0,"timestamp":1}\nnonsense\n{"symbol":"NOSUCH","price":1,"timestamp":1}\n'


async def flood(rng: random.Random, name: str, exchange: ExchangeServer, until: trio.Event) -> int:
    """Send good and bad lines, some thousands a second; returns how many."""
    sent = 0
    while not until.is_set():
        good = any_lines(rng, name, 40, earliest=now() - 70_000, latest=now())
        await exchange.send(BAD + lines(good) + BAD)
        sent += len(good) + 6
        await trio.sleep(0.02)
    return sent


def check(found: Scrape, before: Scrape | None = None) -> None:
    """Check that one scrape adds up, and that no counter has shrunk since an earlier one."""
    assert len(found.exchanges) == 6
    for exchange in found.exchanges:
        assert adds_up(found.updates(exchange)), exchange
    cached = found.total("marketflow_updates_cached_total")
    assert cached == found.one("marketflow_update_latency_seconds_count")
    for histogram in ("marketflow_update_latency_seconds", "marketflow_flush_seconds"):
        buckets = [value for labels, value in found.samples[f"{histogram}_bucket"].items()]
        assert buckets == sorted(buckets)
        assert buckets[-1] == found.one(f"{histogram}_count")
    for name in found.counters if before else ():
        for labels, value in before.samples.get(name, {}).items():
            assert found.samples[name][labels] >= value, (name, labels)


async def check_while(service: Service, scrapes: int) -> Scrape:
    """Scrape and check again and again; returns the last scrape."""
    last = None
    for _ in range(scrapes):
        found = await scrape(service.client)
        check(found, last)
        last = found
    return last


async def check_equal_to_health(service: Service) -> Scrape:
    """Check that /metrics and /health have the same numbers once nothing happens any more."""

    async def equal() -> bool:
        before = await service.client.health()
        found = await scrape(service.client)
        after = await service.client.health()
        if before["updates"] != after["updates"] or after["updates"]["pending"]:
            return False
        for name, health in after["exchanges"].items():
            assert found.updates(name) == health["updates"]
            assert found.one("marketflow_feed_reconnects_total", exchange=name) == health["reconnects"]
            assert found.one("marketflow_feed_bugs_total", exchange=name) == 0
            assert found.one("marketflow_feed_status", exchange=name, status=health["status"]) == 1
            assert found.total("marketflow_feed_status", exchange=name) == 1
            connected = health["status"] in {"connected", "stale"}
            assert found.one("marketflow_feed_connected", exchange=name) == connected
        for store in ("redis", "postgres"):
            assert found.one("marketflow_up", component=store) == (after[store]["status"] == "up")
        assert found.one("marketflow_mode", mode=after["mode"]) == 1
        assert found.one("marketflow_build_info", version=after["version"]) == 1
        return True

    await eventually(equal)
    return await scrape(service.client)


async def test_every_scrape_adds_up_under_load(
    settings: Settings, exchanges: Exchanges, rng: random.Random
) -> None:
    sent: dict[str, int] = {}

    async def run(name: str) -> None:
        sent[name] = await flood(rng, name, exchanges[name], enough)

    async with running(settings) as service:
        enough = trio.Event()
        async with trio.open_nursery() as nursery:
            for name in NAMES:
                nursery.start_soon(run, name)
            await eventually(lambda: service.report().updates.cached > 0)
            last = await check_while(service, 25)
            assert last.total("marketflow_updates_rejected_total") > 0
            assert last.total("marketflow_updates_expired_total") > 0
            enough.set()
        await eventually(lambda: service.report().updates.received == sum(sent.values()))
        found = await check_equal_to_health(service)
        check(found, last)
        for name, count in sent.items():
            assert found.one("marketflow_updates_received_total", exchange=name) == count
        asked = found.one("http_requests_total", method="GET", route="/metrics", status="200")
        assert asked >= 26


async def test_an_outage_of_redis_is_seen_and_adds_up(
    settings: Settings, exchanges: Exchanges, rng: random.Random, own_redis: EmbeddedRedis
) -> None:
    settings = attrs.evolve(settings, redis=RedisSettings(url=own_redis.url, timeout=300))
    async with running(settings) as service:

        async def up(value: int) -> bool:
            return (await scrape(service.client)).one("marketflow_up", component="redis") == value

        enough = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(flood, rng, "exchange1", exchanges["exchange1"], enough))
            await eventually(lambda: service.report().updates.cached > 0)
            own_redis.stop()
            await eventually(lambda: up(0))
            writes = (await scrape(service.client)).one("marketflow_flush_seconds_count")
            last = await check_while(service, 10)
            assert last.total("marketflow_updates_pending") > 0
            assert last.one("marketflow_flush_seconds_count") == writes, (
                "of those that failed nothing is said"
            )
            own_redis.start()
            await eventually(lambda: up(1))
            await check_while(service, 5)
            enough.set()
        found = await check_equal_to_health(service)
        assert found.one("marketflow_flush_seconds_count") > writes
        check(found, last)


async def test_rows_and_modes(settings: Settings, exchanges: Exchanges, rng: random.Random) -> None:
    """Rows are counted once they are in PostgreSQL; exchanges of the other mode are reported too."""
    async with running(settings) as service:
        good = any_lines(rng, "exchange1", 50, earliest=now() - 500, latest=now() - 500)
        await exchanges["exchange1"].send(lines(good))
        await service.accepted(len(good))
        rows = len({each.symbol for each in good})

        async def written() -> bool:
            found = await scrape(service.client)
            pending = found.one("marketflow_aggregates_pending")
            return (found.one("marketflow_aggregates_written_total"), pending) == (rows, 0)

        await eventually(written)
        assert len(stored_rows(settings.postgres.effective_dsn)) == rows

        live = await scrape(service.client)
        assert live.one("marketflow_feed_connected", exchange="exchange1") == 1
        assert live.total("marketflow_feed_connected") == 3
        status, _ = await service.client.read("/mode/test", "POST")
        assert status == 200
        await eventually(lambda: service.report().exchanges["test1"].updates.cached > 0)
        test = await scrape(service.client)
        check(test, live)
        assert {name: test.one("marketflow_feed_connected", exchange=name) for name in test.exchanges} == {
            **dict.fromkeys(NAMES, 0),
            **dict.fromkeys(("test1", "test2", "test3"), 1),
        }
        assert (test.one("marketflow_mode", mode="live"), test.one("marketflow_mode", mode="test")) == (0, 1)


async def test_clients_of_the_live_stream(settings: Settings) -> None:
    """A running stream is not a request in flight; it is counted when it began."""
    async with running(settings) as service:
        port = int(service.client.address.rpartition(":")[2])

        async def clients(count: int) -> bool:
            return (await scrape(service.client)).one("marketflow_stream_clients") == count

        async with event_source(port, "/stream"), event_source(port, "/stream"), web_socket(port, "/ws"):
            await eventually(lambda: clients(3))
            found = await scrape(service.client)
            assert found.one("http_requests_in_flight") == 1
            assert found.one("http_requests_total", method="GET", route="/stream", status="200") == 2
        await eventually(lambda: clients(0))
