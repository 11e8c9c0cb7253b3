"""The service's answers, and the data in Redis, are exactly what exchanges sent."""

from __future__ import annotations

import random
from collections import Counter

import attrs
import pytest
import redis
import trio
from asking import adds_up, eventually
from exchange_server import ExchangeServer
from serving import Service, running
from traffic import NAMES, START_PRICES, SYMBOLS, Sent, any_lines, lines, now, tick, within

from marketflow.config import Settings
from marketflow.config.settings import RedisSettings, WindowSettings
from marketflow.embedded import EmbeddedRedis

PERIODS = {"1s": 1_000, "3s": 3_000, "5s": 5_000, "30s": 30_000, "1m": 60_000}

Exchanges = dict[str, ExchangeServer]


def members(window: redis.Redis) -> Counter[tuple[str, str, float, int]]:
    """All updates in the sorted sets: exchange, symbol, price, timestamp."""
    found: Counter[tuple[str, str, float, int]] = Counter()
    for key in window.keys("prices:*"):
        _, exchange, symbol = key.decode().split(":")
        for member, score in window.zrange(key, 0, -1, withscores=True):
            found[exchange, symbol, float(member.split(b":")[0]), int(score)] += 1
    return found


def as_members(sent: list[Sent]) -> Counter[tuple[str, str, float, int]]:
    return Counter((each.exchange, each.symbol, each.price, each.timestamp) for each in sent)


async def check(
    service: Service, sent: list[Sent], kind: str, symbol: str, exchange: str | None, period: str
) -> None:
    """Ask, and compare the answer with the lines of the span that it covers."""
    path = f"/prices/{kind}/{symbol}?period={period}" + (f"&exchange={exchange}" if exchange else "")
    before = now()
    status, answer = await service.client.get(path)
    if status == 404:
        bar = within(sent, symbol=symbol, exchange=exchange, start=now() - PERIODS[period], end=before)
        assert answer["type"].endswith("no-data"), answer
        assert bar is None, (path, bar)
        return
    assert status == 200, answer
    assert answer["end"] - answer["start"] == PERIODS[period]
    assert before <= answer["end"] <= now()
    assert answer["source"] == "redis"
    assert (answer["symbol"], answer["period"]) == (symbol, period)
    bar = within(sent, symbol=symbol, exchange=exchange, start=answer["start"], end=answer["end"])
    assert bar is not None, answer
    assert answer["updates"] == bar.count, path
    if kind == "aggregate":
        assert (answer["min_price"], answer["max_price"]) == (bar.min, bar.max)
        assert answer["average_price"] == pytest.approx(bar.average, rel=1e-9)
        assert answer["open_price"] in bar.opens
        assert answer["close_price"] in bar.closes
    elif kind == "average":
        assert answer["price"] == pytest.approx(bar.average, rel=1e-9)
    else:
        assert answer["price"] == (bar.max if kind == "highest" else bar.min)
        assert answer["exchange"] in (bar.highest_on if kind == "highest" else bar.lowest_on)
    if kind in {"aggregate", "average"}:
        assert answer["exchange"] == exchange


async def test_the_latest_price_is_the_newest_line_within_a_second(
    settings: Settings, exchanges: Exchanges
) -> None:
    """It is exact for any price; of equal timestamps the later received counts; an older one never does."""
    async with running(settings) as service:
        at = now() - 2_000
        prices = [100150.75492142327, 0.1 + 0.2, 2e-07, 5e-324, 1.7976931348623157e308, 9.0, 10.0, 9.5]
        for price in prices:
            # All in one ms: as text 9.5 sorts after 10.0, and 5e-324 after 2e-07.
            await exchanges["exchange1"].send(Sent("exchange1", "BTCUSDT", price, at).line)

            async def shown(price: float = price) -> bool:
                _, answer = await service.client.get("/prices/latest/BTCUSDT")
                return answer.get("price") == price

            await eventually(shown, within=1)
        await exchanges["exchange2"].send(Sent("exchange2", "BTCUSDT", 7.0, at - 1).line)
        await service.accepted(len(prices) + 1)
        newest = {
            "symbol": "BTCUSDT",
            "exchange": "exchange1",
            "price": 9.5,
            "timestamp": at,
            "source": "redis",
            "volume": None,
        }
        older = newest | {"exchange": "exchange2", "price": 7.0, "timestamp": at - 1}
        assert await service.client.get("/prices/latest/BTCUSDT") == (200, newest)
        assert await service.client.get("/prices/latest/exchange2/BTCUSDT") == (200, older)
        assert await service.client.get("/prices/latest") == (200, {"prices": [newest, older]})
        status, problem = await service.client.get("/prices/latest/ETHUSDT")
        assert (status, problem["type"].endswith("no-data")) == (404, True)


async def test_every_good_line_is_one_member(
    settings: Settings, exchanges: Exchanges, window: redis.Redis, rng: random.Random
) -> None:
    """Equal lines in one ms are separate members, and every price is in Redis to the last digit."""
    at = now()
    sent = [
        line
        for name in NAMES
        for line in [
            *any_lines(rng, name, 2_000, earliest=at - 50_000, latest=at),
            *[Sent(name, "BTCUSDT", 100_000.5, at)] * 500,
        ]
    ]
    async with running(settings) as service:
        for name, exchange in exchanges.items():
            await exchange.send(lines(line for line in sent if line.exchange == name))
        await service.accepted(len(sent))
        await eventually(lambda: service.report().updates.pending == 0)
        assert members(window) == as_members(sent)
        updates = (await service.client.health())["updates"]
    assert updates == {
        "received": len(sent),
        "accepted": len(sent),
        "rejected": {},
        "cached": len(sent),
        "expired": 0,
        "dropped": {},
        "pending": 0,
    }
    assert members(window) == as_members(sent), "the stop changes nothing"


async def test_every_span_is_exact(settings: Settings, exchanges: Exchanges, rng: random.Random) -> None:
    """All statistics, of one exchange and of all, are exact to the ms, without future lines."""
    at = now()
    sent = [
        line
        for name in NAMES
        for line in any_lines(rng, name, 3_000, earliest=at - 58_000, latest=at + 4_000)
    ]
    async with running(settings) as service:
        for name, exchange in exchanges.items():
            await exchange.send(lines(line for line in sent if line.exchange == name))
        await service.accepted(len(sent))
        for kind in ("highest", "lowest", "average", "aggregate"):
            for period in PERIODS:
                for exchange in (None, "exchange2"):
                    await check(service, sent, kind, rng.choice(SYMBOLS), exchange, period)


async def test_an_answer_contains_all_that_was_accepted_before(
    settings: Settings, exchanges: Exchanges, rng: random.Random
) -> None:
    """This holds while traffic flows, and the ledgers add up at every moment."""
    sent: list[Sent] = []
    kinds = ["highest", "lowest", "average", "aggregate"]
    async with running(settings) as service:
        until = trio.current_time() + 2.5
        while trio.current_time() < until:
            for name, exchange in exchanges.items():
                some = [*tick(rng, name, now()), *tick(rng, name, now() - rng.randint(0, 30_000))]
                sent += some
                await exchange.send(lines(some))
            await service.accepted(len(sent))
            await check(
                service,
                sent,
                rng.choice(kinds),
                rng.choice(SYMBOLS),
                rng.choice([None, *NAMES]),
                rng.choice([*PERIODS]),
            )
            report = await service.client.health()
            ledgers = [report["updates"], *(each["updates"] for each in report["exchanges"].values())]
            assert all(adds_up(ledger) for ledger in ledgers), report


async def test_nothing_stays_in_redis_for_longer_than_promised(
    settings: Settings, exchanges: Exchanges, window: redis.Redis, rng: random.Random
) -> None:
    """No member is older than the window and 5 s at any moment, and every key expires."""
    settings = attrs.evolve(settings, window=WindowSettings(length=1_000))
    sent = 0
    first = now()
    async with running(settings) as service:

        async def trimmed() -> bool:
            nonlocal sent
            for name, exchange in exchanges.items():
                # Some are older than the window when they arrive: bars count them, the window does not.
                some = [*tick(rng, name, now()), *tick(rng, name, now() - 1_500)]
                sent += len(some)
                await exchange.send(lines(some))
            await trio.sleep(0.05)
            keys = window.keys()
            oldest = [window.zrange(key, 0, 0, withscores=True) for key in keys if key.startswith(b"prices:")]
            assert min((score for found in oldest for _, score in found), default=now()) >= now() - 6_000, (
                "older than length + 5 s"
            )
            assert all(window.ttl(key) > 0 for key in keys)
            assert all(window.ttl(key) <= 7 for key in keys if key.startswith(b"prices:"))
            return len(keys) > 30 and all(found and found[0][1] > first + 500 for found in oldest)

        await eventually(trimmed, within=9)
        await service.accepted(sent)
        report = await service.client.health()
        assert adds_up(report["updates"])
        assert report["updates"]["expired"] >= sent / 2


async def test_a_start_between_lines_of_the_provided_kind(
    settings: Settings, exchanges: Exchanges, rng: random.Random
) -> None:
    """With five lines every 100 ms on three ports, each symbol has a price from the first tick on."""
    async with running(settings) as service:
        for name, exchange in exchanges.items():
            await exchange.send(lines(tick(rng, name, now())))
        await service.accepted(15)
        status, answer = await service.client.get("/prices/highest?period=5s")
        assert status == 200
        assert [each["symbol"] for each in answer["prices"]] == [*START_PRICES]
        assert [each["updates"] for each in answer["prices"]] == [3] * 5
        assert (await service.client.health())["status"] == "ok"


async def test_the_first_question_waits_for_the_first_answer_of_redis(
    settings: Settings, exchanges: Exchanges, rng: random.Random, own_redis: EmbeddedRedis
) -> None:
    """A service that has just started waits for Redis instead of treating it as away."""
    settings = attrs.evolve(settings, redis=RedisSettings(url=own_redis.url, timeout=5_000))
    own_redis.pause()
    async with running(settings) as service, trio.open_nursery() as nursery:
        await exchanges["exchange1"].send(lines(tick(rng, "exchange1", now())))
        await service.accepted(5)

        async def resume() -> None:
            await trio.sleep(0.3)
            own_redis.resume()

        nursery.start_soon(resume)
        status, answer = await service.client.get("/prices/aggregate/BTCUSDT?period=5s")
        assert (status, answer.get("source"), answer.get("updates")) == (200, "redis", 1)
