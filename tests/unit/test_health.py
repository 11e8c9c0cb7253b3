from __future__ import annotations

from types import MappingProxyType

import pytest
import trio
from builders import EXCHANGES, NOON, World

from marketflow.app.ports import StoreAway
from marketflow.app.watch.health import Health


class Line:
    """The parts of a feed that health reads."""

    def __init__(self, exchange):
        self.exchange = exchange
        self.connected = False
        self.running_since = trio.current_time()
        self.reconnects = 0
        self.bugs = 0


class Service:
    """Health over a world without tasks: the test sets what it reads."""

    def __init__(self):
        self.world = World()
        self.mode = "live"
        self.live = [Line(exchange) for exchange in EXCHANGES]
        self.test = [Line("test1")]
        self.venues = {}
        self.health = Health(
            feeds={"live": self.live, "test": self.test},
            venues=self.venues,
            mode=lambda: self.mode,
            share=self.world.share.figures,
            redis=self.world.redis,
            postgres=self.world.postgres,
            clock=self.world.clock,
            stale_after=5.0,
            version="1.2.3",
        )

    @property
    def statuses(self):
        return {each.name: each.status for each in self.health.exchange_list()}

    @property
    def status(self):
        return self.health.report().status


class AVenue:
    """The parts of a venue's source that health reads."""

    kind = "kraken"
    symbols = MappingProxyType({"BTCUSDT": "BTC/USDT", "ETHUSDT": "ETH/USDT"})
    silence = 5.0
    activity = "live"
    subscribed = True

    def __init__(self):
        self.heard_at = self.well_at = trio.current_time()
        self.rejected_symbols = {}


@pytest.fixture
async def service():
    it = Service()
    it.health.serving = True
    it.world.redis.answered()
    it.world.postgres.answered()
    for line in it.live:
        line.connected = True
    return it


async def test_all_is_well(autojump_clock, service):
    for exchange in EXCHANGES:
        service.world.send_one(1.0, exchange=exchange)
    assert service.status == "ok"
    assert service.statuses == {"exchange1": "connected", "exchange2": "connected", "test1": "off"}


async def test_without_an_accepted_update_it_is_stale(autojump_clock, service):
    """It is stale from the start on, with any amount of garbage, until one good update."""
    await trio.sleep(4.9)
    assert service.status == "ok"
    service.world.send("exchange1", [], rejected=5)
    await trio.sleep(0.2)
    assert service.statuses["exchange1"] == "stale"
    assert service.status == "degraded"
    for exchange in EXCHANGES:
        service.world.send_one(1.0, exchange=exchange)
    assert service.status == "ok"


async def test_a_connection_that_is_lost(autojump_clock, service):
    """After a reconnect it is stale until a good line: an exchange that flaps must not look healthy."""
    service.live[0].connected = False
    assert service.statuses["exchange1"] == "reconnecting"
    assert service.status == "degraded"
    await trio.sleep(60)
    service.live[0].connected = True
    assert service.statuses["exchange1"] == "stale"
    service.world.send_one(1.0)
    assert service.statuses["exchange1"] == "connected"


async def test_a_venue_without_trades_is_not_stale(autojump_clock, service):
    """Its own signs of life count: a market may be quiet."""
    venue = service.venues["exchange1"] = AVenue()
    venue.silence = 50.0
    await trio.sleep(29.9)
    assert service.statuses == {"exchange1": "connected", "exchange2": "stale", "test1": "off"}
    await trio.sleep(0.2)
    assert service.statuses["exchange1"] == "stale"
    venue.heard_at = trio.current_time()
    assert service.statuses["exchange1"] == "connected"


async def test_a_venue_that_refuses_all_symbols_is_stale(autojump_clock, service):
    venue = service.venues["exchange1"] = AVenue()
    venue.rejected_symbols = {"ETHUSDT": "no such pair"}
    assert service.statuses["exchange1"] == "connected"
    venue.rejected_symbols["BTCUSDT"] = "no such pair"
    assert service.statuses["exchange1"] == "stale"


async def test_what_a_venue_is_doing(autojump_clock, service):
    venue = service.venues["exchange1"] = AVenue()
    venue.rejected_symbols = {"ETHUSDT": "no such pair"}
    report = service.health.report().exchanges
    told = report["exchange1"]
    assert (told.kind, told.activity, told.rejected_symbols) == ("kraken", "live", ["ETHUSDT"])
    other = report["exchange2"]
    assert (other.kind, other.activity, list(other.rejected_symbols)) == ("lines", None, [])
    assert told.symbols == {"BTCUSDT": "BTC/USDT", "ETHUSDT": "ETH/USDT"}
    service.mode = "test"
    assert service.health.report().exchanges["exchange1"].activity is None


@pytest.mark.parametrize("store", ["redis", "postgres"])
async def test_a_store_that_is_away(autojump_clock, service, store):
    await trio.sleep(3.0)
    state = getattr(service.world, store)
    state.failed(StoreAway("gone"))
    for exchange in EXCHANGES:
        service.world.send_one(1.0, exchange=exchange)
    assert service.status == "degraded"
    await trio.sleep(1.5)
    told = getattr(service.health.report(), store)
    assert (told.status, told.error, told.since) == ("away", "gone", NOON + 3_000)
    state.failed(StoreAway("still"))
    assert getattr(service.health.report(), store).since == NOON + 3_000
    state.answered()
    told = getattr(service.health.report(), store)
    assert (told.status, told.error, told.since) == ("up", None, NOON + 4_500)


async def test_stores_count_as_away_until_they_have_answered(autojump_clock):
    service = Service()
    service.health.serving = True
    report = service.health.report()
    assert (report.redis.status, report.postgres.status, report.status) == ("away", "away", "degraded")


async def test_starting_and_stopping_it_is_unavailable_and_not_ready(autojump_clock, service):
    assert service.health.ready
    service.health.serving = False
    assert service.status == "unavailable"
    assert not service.health.ready
    assert service.health.live


async def test_only_the_mode_s_exchanges_matter(autojump_clock, service):
    service.mode = "test"
    assert service.status == "degraded"
    service.test[0].connected = True
    assert service.status == "ok"
    assert service.statuses == {"exchange1": "off", "exchange2": "off", "test1": "connected"}
    assert {each.name: each.mode for each in service.health.exchange_list()} == {
        "exchange1": "live",
        "exchange2": "live",
        "test1": "test",
    }


async def test_the_counters_add_up_by_exchange_and_in_all(autojump_clock, service):
    """This includes the other mode's exchanges: no received line is left out."""
    service.world.send_one(1.0, exchange="exchange1")
    service.world.send("exchange2", [("BTCUSDT", 1.0, service.world.now)] * 3, rejected=2)
    service.world.send_one(1.0, exchange="test1")
    service.world.book.flushes.drop_pending()
    report = service.health.report()
    every = [each.updates for each in report.exchanges.values()]
    for name in ("received", "accepted", "cached", "expired", "pending"):
        assert getattr(report.updates, name) == sum(getattr(each, name) for each in every)
    assert report.updates.received == 7
    assert report.updates.rejected == {"price": 2}
    assert report.updates.dropped == {"shutdown": 5}
    assert report.exchanges["test1"].updates.accepted == 1


async def test_ages_and_uptime_are_in_seconds(autojump_clock, service):
    assert service.health.report().exchanges["exchange1"].last_update_age is None
    service.world.send_one(1.0)
    await trio.sleep(2.25)
    report = service.health.report()
    assert report.exchanges["exchange1"].last_update_age == 2.25
    assert (report.uptime, report.version, report.mode) == (2.25, "1.2.3", "live")


async def test_a_store_that_takes_no_row_at_all(autojump_clock, service):
    """It is up, but the service is degraded until a row is accepted."""
    service.world.postgres.refused("function no_such() does not exist")
    report = service.health.report()
    assert (report.status, report.postgres.status) == ("degraded", "up")
    assert report.postgres.error == "function no_such() does not exist"
    service.world.postgres.took()
    report = service.health.report()
    assert (report.status, report.postgres.error) == ("ok", None)
