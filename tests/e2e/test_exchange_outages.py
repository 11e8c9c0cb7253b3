"""Exchanges that go away, come back, or fall silent: health reports it, and the service recovers."""

from __future__ import annotations

import random
from typing import Any

import attrs
import pytest
import trio
from asking import adds_up, eventually
from exchange_server import ExchangeServer
from serving import Service, running
from traffic import NAMES, lines, now, tick

from marketflow.config import Settings
from marketflow.config.settings import FeedSettings

Exchanges = dict[str, ExchangeServer]


async def health_when(service: Service, name: str, status: str, *, within: float) -> Any:
    """Wait until health reports this about an exchange; returns the whole report."""
    seen: Any = None

    async def said() -> Any:
        nonlocal seen
        seen = await service.client.health()
        return seen["exchanges"][name]["status"] == status

    await eventually(said, within=within)
    return seen


@pytest.mark.parametrize(("way", "seconds"), [("kill", 3), ("orderly", 1)])
async def test_one_that_was_away_flows_again_within_three_seconds(
    settings: Settings, exchanges: Exchanges, rng: random.Random, way: str, seconds: float
) -> None:
    """Health reports the outage, other exchanges go on, and no update is lost or counted twice."""
    away = exchanges["exchange1"]
    sent = 0

    async def send(*names: str) -> None:
        nonlocal sent
        for name in names:
            await exchanges[name].send(lines(tick(rng, name, now())))
            sent += 5
        await service.accepted(sent)

    async with running(settings) as service:
        await send(*NAMES)
        await service.healthy()
        if way == "kill":
            away.kill()
        else:
            away.refuse()
            away.close()
        report = await health_when(service, "exchange1", "reconnecting", within=1)
        assert report["status"] == "degraded"
        assert [report["exchanges"][name]["status"] for name in NAMES[1:]] == ["connected"] * 2
        gone = trio.current_time()
        while trio.current_time() < gone + seconds:
            await send(*NAMES[1:])
            await trio.sleep(0.1)
        assert (await service.client.get("/prices/latest/exchange1/BTCUSDT"))[0] == 200

        away.listen()
        with trio.fail_after(20):
            await send("exchange1")
        report = await health_when(service, "exchange1", "connected", within=1)
        assert report["status"] == "ok"
        assert report["exchanges"]["exchange1"]["reconnects"] == 1
        assert report["exchanges"]["exchange2"]["reconnects"] == 0
        assert adds_up(report["updates"])
        assert report["updates"]["rejected"] == report["updates"]["dropped"] == {}


async def test_one_that_is_away_at_the_start_is_found_when_it_comes(
    settings: Settings, exchanges: Exchanges, rng: random.Random
) -> None:
    late = exchanges["exchange3"]
    late.refuse()
    async with running(settings) as service:
        await health_when(service, "exchange3", "reconnecting", within=1)
        await trio.sleep(0.5)
        late.listen()
        with trio.fail_after(20):
            await late.send(lines(tick(rng, "exchange3", now())))
            await service.accepted(5)
        assert (await service.client.health())["exchanges"]["exchange3"]["reconnects"] == 0


@pytest.mark.parametrize("said", [b"", b"\n", b"nonsense\n"], ids=["nothing", "heartbeats", "garbage"])
async def test_one_without_updates_is_stale(
    settings: Settings, exchanges: Exchanges, rng: random.Random, said: bytes
) -> None:
    """Other bytes do not matter; the next accepted update ends it. The connection stays."""
    settings = attrs.evolve(settings, feeds=FeedSettings(stale_after=400))
    silent = exchanges["exchange1"]
    async with running(settings) as service:
        for name, exchange in exchanges.items():
            await exchange.send(lines(tick(rng, name, now())))
        await service.accepted(15)
        until, report = trio.current_time() + 20, await service.client.health()
        # If the machine stands still for a moment all are stale.
        while [report["exchanges"][name]["status"] for name in NAMES[:2]] != ["stale", "connected"]:
            assert trio.current_time() < until
            await silent.send(said)
            for name in NAMES[1:]:
                await exchanges[name].send(lines(tick(rng, name, now())))
            await trio.sleep(0.05)
            report = await service.client.health()
        assert report["status"] == "degraded"
        assert report["exchanges"]["exchange1"]["last_update_age"] >= 0.4
        _, listed = await service.client.get("/exchanges")
        assert {"name": "exchange1", "mode": "live", "status": "stale"} in listed["exchanges"]
        await silent.send(lines(tick(rng, "exchange1", now())))
        await health_when(service, "exchange1", "connected", within=1)
        assert silent.connections == 1


async def test_a_silent_connection_is_made_again(
    settings: Settings, exchanges: Exchanges, rng: random.Random
) -> None:
    """After `idle_timeout` without a byte it is made again. A heartbeat counts as a byte."""
    settings = attrs.evolve(settings, feeds=FeedSettings(stale_after=300, idle_timeout=2_500))
    silent, beating = exchanges["exchange1"], exchanges["exchange2"]
    async with running(settings) as service, trio.open_nursery() as nursery:

        async def beat() -> None:
            while True:
                await beating.send(b"\n")
                await trio.sleep(0.1)

        nursery.start_soon(beat)
        await silent.send(lines(tick(rng, "exchange1", now())))
        await service.accepted(5)
        await health_when(service, "exchange1", "stale", within=2)
        with trio.fail_after(20):
            await silent.connected(2)
        await silent.send(lines(tick(rng, "exchange1", now())))
        await service.accepted(10)
        report = await health_when(service, "exchange1", "connected", within=1)
        assert report["exchanges"]["exchange1"]["reconnects"] >= 1
        assert beating.connections == 1
        nursery.cancel_scope.cancel()


async def test_one_that_ends_every_connection_is_not_flooded(
    settings: Settings, exchanges: Exchanges
) -> None:
    """Attempts to connect become less frequent."""
    mad = exchanges["exchange1"]
    async with running(settings) as service:
        until = trio.current_time() + 2
        while trio.current_time() < until:
            seen = mad.connections
            with trio.move_on_at(until):
                await mad.connected(seen + 1)
                mad.reset()
        # The limit is 0.25 s and doubles: about 5 attempts in 2 s, and some more with full jitter.
        assert 2 <= mad.connections <= 25
        assert service.report().exchanges["exchange2"].status == "connected"
