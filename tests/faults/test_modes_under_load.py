"""The mode is switched under load: modes do not mix, and no received update is lost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import redis
import trio
from rig import (
    Exchange,
    Service,
    all_sent,
    eventually,
    exchanges,
    now_ms,
    playing,
    rows_are_right,
    service,
    settings_for,
)

from marketflow.app.interface import Counters

LIVE = ("exchange1", "exchange2")
TEST = ("test1", "test2")
EXCHANGES_OF = {"live": LIVE, "test": TEST}
FAST = {"generator": {"exchanges": TEST, "rate": 50.0}}


def counters(it: Service, names: tuple[str, ...]) -> dict[str, Counters]:
    """The counters of some exchanges."""
    return {name: it.running.report().exchanges[name].updates for name in names}


def members(url: str, exchange: str, symbol: str) -> list[tuple[int, float]]:
    """Timestamps and prices in the window."""
    with redis.Redis.from_url(url) as client:
        held = client.zrange(f"prices:{exchange}:{symbol}", 0, -1, withscores=True)
    return [(int(score), float(member.split(b":")[0])) for member, score in held]


def check_nothing_lost(url: str, players: list[Exchange], accepted: dict[str, Counters]) -> None:
    """For each connection the window has the first updates that were sent, without a gap, and no others."""
    for player in players:
        held = {
            (symbol, *each)
            for symbol in ("BTCUSDT", "DOGEUSDT")
            for each in members(url, player.name, symbol)
        }
        assert len(held) == accepted[player.name].accepted
        found = 0
        for connection in range(1, player.connections + 1):
            sent = [each for each in player.sent if each.connection == connection]
            kept = [(each.symbol, each.timestamp, each.price) in held for each in sent]
            assert kept == sorted(kept, reverse=True), "a gap"
            found += sum(kept)
        assert found == len(held)


async def test_switches_under_load(redis_url: str, postgres_dsn: str, tmp_path: Path) -> None:
    """After the answer no update of the old mode is accepted, and all received ones are cached."""
    async with exchanges(*LIVE) as players:
        settings = settings_for(players, redis_url, postgres_dsn, tmp_path, **FAST)
        async with service(settings, players, all_received=False) as it, playing(*players, tick=0.005):
            await trio.sleep(0.2)
            for mode, other in (("test", "live"), ("live", "test")) * 3:
                answer = await it.post(f"/mode/{mode}")
                answered = now_ms()
                left = counters(it, EXCHANGES_OF[other])
                assert (answer.status, answer.body) == (200, {"mode": mode, "changed": True})
                assert (await it.post(f"/mode/{mode}")).body == {"mode": mode, "changed": False}
                assert (await it.get("/mode"))["mode"] == mode

                # Questions without an exchange are only about this mode, as soon as it has data.
                async def answers(mode: str = mode) -> bool:
                    latest = await it.get("/prices/latest")
                    assert {each["exchange"] for each in latest["prices"]} <= set(EXCHANGES_OF[mode])
                    return len(latest["prices"]) == 4

                await eventually(answers)
                assert (await it.get("/prices/latest/BTCUSDT"))["exchange"] in EXCHANGES_OF[mode]
                lowest = await it.get("/prices/lowest/DOGEUSDT?period=1m")
                assert lowest["exchange"] in EXCHANGES_OF[mode]
                states: dict[str, Any] = {
                    each["name"]: each["status"] for each in (await it.get("/exchanges"))["exchanges"]
                }
                assert {states[name] for name in EXCHANGES_OF[other]} == {"off"}

                await trio.sleep(0.2)
                now = counters(it, EXCHANGES_OF[other])
                for name, before in left.items():
                    assert now[name].received == before.received, "an update of the old mode"
                    assert now[name].pending == 0
                    assert now[name].cached == now[name].accepted
                if mode == "test":
                    check_nothing_lost(redis_url, players, now)
                else:
                    for name in TEST:
                        held = [*members(redis_url, name, "BTCUSDT"), *members(redis_url, name, "DOGEUSDT")]
                        assert len(held) == now[name].accepted
                        assert max(timestamp for timestamp, _ in held) <= answered
            await it.post("/mode/test")
        report = it.running.report()
        check_nothing_lost(redis_url, players, {n: report.exchanges[n].updates for n in LIVE})
        # After a restart it has the configured mode, and completes the rows of the first service.
        async with service(settings, players) as it:
            assert (await it.get("/mode"))["mode"] == "live"
            held = {
                (player.name, symbol, *each)
                for player in players
                for symbol in ("BTCUSDT", "DOGEUSDT")
                for each in members(redis_url, player.name, symbol)
            }
            kept = [
                each
                for each in all_sent(players)
                if (each.exchange, each.symbol, each.timestamp, each.price) in held
            ]
            await rows_are_right(
                postgres_dsn, kept, until=max(each.timestamp for each in kept) + 2_000, only=LIVE
            )


async def test_many_switches_at_once(redis_url: str, postgres_dsn: str, tmp_path: Path) -> None:
    """Each is answered with the mode that it wanted; the reported changes alternate."""
    async with exchanges(*LIVE) as players:
        settings = settings_for(players, redis_url, postgres_dsn, tmp_path, **FAST)
        async with service(settings, players, all_received=False) as it, playing(*players):
            changes: Counter[str] = Counter()

            async def switch(mode: str) -> None:
                answer = await it.post(f"/mode/{mode}")
                assert answer.status == 200
                assert answer.body["mode"] == mode
                changes[mode] += answer.body["changed"]

            async with trio.open_nursery() as nursery:
                for mode in ("test", "live", "test", "test", "live", "live", "test", "live"):
                    nursery.start_soon(switch, mode)
            final = (await it.get("/mode"))["mode"]
            assert changes["test"] - changes["live"] == (final == "test")
            assert changes["test"] >= 1
            await eventually(lambda: it.running.report().status == "ok")
            statuses = {name: each.status for name, each in it.running.report().exchanges.items()}
            expected = {
                name: "connected" if mode == final else "off"
                for mode, names in EXCHANGES_OF.items()
                for name in names
            }
            assert statuses == expected


async def test_who_may_not_or_does_not_finish_switches_nothing(
    redis_url: str, postgres_dsn: str, tmp_path: Path
) -> None:
    """A POST without the token, or with an incomplete body, switches nothing."""
    async with exchanges(*LIVE) as players:
        settings = settings_for(players, redis_url, postgres_dsn, tmp_path, **FAST, http={"token": "secret"})
        async with service(settings, players, all_received=False) as it, playing(*players):
            token = {"Authorization": "Bearer secret"}
            assert (await it.post("/mode/test")).status == 401
            assert (await it.post("/mode/test", headers={"Authorization": "Bearer secrets"})).status == 401
            host, port = it.url.removeprefix("http://").split(":")
            stream = await trio.open_tcp_stream(host, int(port))
            async with stream:
                head = "POST /mode/test HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n"
                await stream.send_all(f"{head}Content-Length: 10\r\n\r\nhalf".encode())
                await trio.sleep(0.3)
                assert (await it.get("/mode"))["mode"] == "live"
            await trio.sleep(0.2)
            assert (await it.get("/mode"))["mode"] == "live"
            assert it.running.report().exchanges["exchange1"].reconnects == 0
            assert (await it.post("/mode/test", headers=token)).body == {"mode": "test", "changed": True}
