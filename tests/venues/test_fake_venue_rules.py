"""Fake venues hold their clients to the rules of the real ones, on a virtual clock."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock
from venue_client import HOURS, Client, Closed, Refused, connected, endpoint, post
from venue_forms import GREETING, KINDS, SYMBOLS, is_trade, requests

from marketflow.adapters.exchange.fake_venues.limits import Window
from marketflow.adapters.exchange.fake_venues.protocol import Rate
from marketflow.adapters.exchange.fake_venues.server import FakeVenue

POLICY = 1008
HOST = "127.0.0.1"


@pytest.fixture
def virtual_clock() -> MockClock:
    """Time stands still while bytes are on their way, so minutes pass at once."""
    return MockClock(autojump_threshold=0.01)


@asynccontextmanager
async def client_of(kind: str, *, pongs: bool = True, **options) -> AsyncIterator[tuple[FakeVenue, Client]]:
    """A venue and a client that has waited for its greeting."""
    async with (
        FakeVenue(kind, symbols=options.pop("symbols", SYMBOLS[kind]), **options) as venue,
        connected(await endpoint(venue.url), pongs=pongs, limit=HOURS) as client,
    ):
        if kind in GREETING:
            await client.text()
        yield venue, client


async def ended_after(client: Client) -> tuple[float, Closed]:
    """When the venue ends the connection, in seconds from now, and how."""
    begin = trio.current_time()
    closed = await client.closed()
    return trio.current_time() - begin, closed


async def repeat(pause: float, action: Callable[[], Awaitable[object]]) -> None:
    while True:
        await trio.sleep(pause)
        await action()


async def lives(
    client: Client, seconds: float, pause: float, action: Callable[[], Awaitable[object]]
) -> bool:
    """Whether a connection lives for so many seconds if the client does something now and then."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(repeat, pause, action)
        try:
            await client.quiet(seconds)
        except Closed:
            return False
        else:
            return True
        finally:
            nursery.cancel_scope.cancel()


def ping_of(kind: str) -> object:
    return {
        "okx": "ping",
        "bybit": {"op": "ping"},
        "kraken": {"method": "ping"},
        "kucoin": {"id": 5, "type": "ping"},
        "bitstamp": {"event": "bts:heartbeat"},
        "gateio": {"time": 1, "channel": "spot.ping"},
        "bitfinex": {"event": "ping", "cid": 5},
    }[kind]


# ---- times ----


@pytest.mark.parametrize(("kind", "seconds"), [("coinbase", 5), ("okx", 30), ("bybit", 600), ("kucoin", 28)])
async def test_a_client_that_does_nothing_is_cut(virtual_clock, kind: str, seconds: float) -> None:
    """After exactly the time of the rule."""
    async with client_of(kind) as (venue, client):
        after, closed = await ended_after(client)
        assert after == pytest.approx(seconds, abs=0.2)
        assert closed.code == POLICY
        (violation,) = venue.violations
        assert violation.startswith("connection 1: no ")
        assert violation.endswith(f"{seconds} s")


@pytest.mark.parametrize(("kind", "pause"), [("okx", 29), ("bybit", 599), ("kucoin", 27)])
async def test_a_client_that_pings_is_not_cut(virtual_clock, kind: str, pause: float) -> None:
    async with client_of(kind) as (venue, client):
        assert await lives(client, 4 * pause, pause, lambda: client.send(ping_of(kind)))
        assert venue.violations == []


async def test_pings_of_websockets_do_not_count_for_kucoin_and_okx(virtual_clock) -> None:
    """They want pings of their own form."""
    for kind in ("kucoin", "okx"):
        async with client_of(kind) as (_, client):
            assert not await lives(client, 35, 5, client.ping)


async def test_data_keeps_a_connection_to_okx(virtual_clock) -> None:
    async with client_of("okx") as (venue, client):
        await client.send(*requests("okx", venue.symbols))

        async def trade() -> None:
            venue.trade()

        assert await lives(client, 300, 29, trade)


async def test_a_subscription_in_time_keeps_a_connection_to_coinbase(virtual_clock) -> None:
    async with client_of("coinbase") as (venue, client):
        await trio.sleep(4.9)
        await client.send(*requests("coinbase", venue.symbols))
        await client.quiet(60)
        assert venue.violations == []


async def test_binance_pings_and_wants_pongs(virtual_clock) -> None:
    """A ping each 20 s; without a pong for 60 s the connection ends."""
    async with client_of("binance") as (venue, client):
        await client.quiet(610)
        assert client.pings == 30
        assert venue.violations == []
    async with client_of("binance", pongs=False) as (venue, client):
        after, closed = await ended_after(client)
        assert (after, closed.code) == (pytest.approx(60, abs=0.2), POLICY)
        assert venue.violations == ["connection 1: no pong for 60 s"]


@pytest.mark.parametrize(("kind", "hours"), [("binance", 24), ("kucoin", 24), ("bitstamp", 90 * 24)])
async def test_a_connection_has_a_lifetime(virtual_clock, kind: str, hours: float) -> None:
    """Its end is no violation. A shorter one is tried, since the pings of a day take long."""
    async with client_of(kind) as (venue, client):
        assert venue._floor.kind.rules.lifetime == hours * 3_600
    async with FakeVenue(kind, symbols=SYMBOLS[kind]) as venue:
        venue.faults.lifetime = 26.0
        async with connected(await endpoint(venue.url), limit=HOURS) as client:
            after, closed = await ended_after(client)
            assert (after, closed.code) == (pytest.approx(26, abs=0.2), 1001)
            assert venue.violations == []


# ---- heartbeats ----


async def test_kraken_sends_heartbeats_while_it_is_quiet(virtual_clock) -> None:
    async with client_of("kraken") as (venue, client):
        assert await client.quiet(10) == []  # nothing is subscribed to
        await client.send(*requests("kraken", venue.symbols))
        beats = [each for each in await client.quiet(10.5) if each == b'{"channel":"heartbeat"}']
        assert len(beats) == 10
        venue.rate = 10
        found = await client.quiet(10.05)
        assert len(found) == 100
        assert all(is_trade("kraken", each) for each in found)
        venue.rate = 0
        assert [each for each in await client.quiet(3) if is_trade("kraken", each)] == []


async def test_coinbase_sends_a_heartbeat_for_each_product_of_the_channel(virtual_clock) -> None:
    async with client_of("coinbase") as (venue, client):
        first = venue.symbols[0]
        await client.send({"type": "subscribe", "channels": ["heartbeat"], "product_ids": [first]})
        await client.send(*requests("coinbase", venue.symbols))
        await client.quiet(0.5)
        trade = venue.trade(3, first)[-1]
        found = [await client.json() for _ in range(4)]
        beat = found[-1]
        assert [each["type"] for each in found] == ["match"] * 3 + ["heartbeat"]
        assert (beat["product_id"], beat["last_trade_id"]) == (first, trade.id)
        assert len(await client.quiet(10.5)) == 10


@pytest.mark.parametrize(
    ("kind", "pong"),
    [
        ("okx", b"pong"),
        ("bybit", b'{"success":true,"ret_msg":"pong","conn_id":"00000001","op":"ping"}'),
        ("kucoin", b'{"id":"5","type":"pong"}'),
        ("bitstamp", b'{"event":"bts:heartbeat","channel":"","data":{"status":"success"}}'),
    ],
)
async def test_a_ping_is_answered(virtual_clock, kind: str, pong: bytes) -> None:
    async with client_of(kind) as (_, client):
        await client.send(ping_of(kind))
        assert await client.text() == pong


@pytest.mark.parametrize(
    ("kind", "field", "pong"),
    [("kraken", "method", "pong"), ("gateio", "channel", "spot.pong"), ("bitfinex", "event", "pong")],
)
async def test_a_ping_is_answered_with_the_time(virtual_clock, kind: str, field: str, pong: str) -> None:
    async with client_of(kind) as (_, client):
        await client.send(ping_of(kind))
        assert (await client.json())[field] == pong


# ---- limits of messages ----


async def test_binance_takes_five_messages_a_second(virtual_clock) -> None:
    async with client_of("binance") as (venue, client):
        for _ in range(10):
            await client.send(*requests("binance", venue.symbols) * 5)
            await client.quiet(1.001)
        assert venue.violations == []
        await client.send(*requests("binance", venue.symbols) * 6)
        assert (await client.closed()).code == POLICY
        assert venue.violations == ["connection 1: messages: 6 within 1 s (at most 5)"]


@pytest.mark.parametrize("what", ["ping", "pong"])
async def test_pings_and_pongs_to_binance_are_messages(virtual_clock, what: str) -> None:
    async with client_of("binance") as (venue, client):
        for _ in range(6):
            await getattr(client, what)()
        assert (await client.closed()).code == POLICY
        assert venue.violations == ["connection 1: messages, pings and pongs: 6 within 1 s (at most 5)"]


async def test_pings_of_websockets_are_no_messages_for_others(virtual_clock) -> None:
    async with client_of("kucoin") as (venue, client):
        for _ in range(150):
            await client.ping()
        await client.quiet(0.1)
        assert (client.pongs, venue.violations) == (150, [])


async def test_kucoin_takes_a_hundred_messages_in_ten_seconds(virtual_clock) -> None:
    async with client_of("kucoin") as (venue, client):
        for _ in range(100):
            await client.send(ping_of("kucoin"))
        await client.quiet(10.001)
        for _ in range(101):
            assert venue.violations == []
            await client.send(ping_of("kucoin"))
        assert (await client.closed()).code == POLICY
        assert venue.violations == ["connection 1: messages: 101 within 10 s (at most 100)"]


async def test_coinbase_takes_eight_requests_a_second_from_an_address(virtual_clock) -> None:
    async with client_of("coinbase") as (venue, one), connected(venue.url, limit=HOURS) as other:
        for client in (one, other) * 4:
            await client.send(*requests("coinbase", venue.symbols))
        await one.quiet(0.1)
        assert venue.violations == []
        await one.send(*requests("coinbase", venue.symbols))
        assert (await one.closed()).code == POLICY
        assert venue.violations == ["connection 1: messages of the address: 9 within 1 s (at most 8)"]


async def test_okx_takes_480_subscriptions_an_hour_and_any_number_of_pings(virtual_clock) -> None:
    async with client_of("okx") as (venue, client):
        for _ in range(480):
            await client.send("ping", *requests("okx", venue.symbols[:1]))
        await client.send("ping")
        await client.quiet(1)
        assert venue.violations == []
        await client.send(*requests("okx", venue.symbols[:1]))
        assert (await client.closed()).code == POLICY
        assert venue.violations == ["connection 1: subscriptions: 481 within 3600 s (at most 480)"]


# ---- limits of symbols ----


async def test_bybit_takes_ten_symbols_in_a_request(virtual_clock) -> None:
    """More are answered with an error, and the connection goes on."""
    symbols = [f"A{number}USDT" for number in range(11)]
    async with client_of("bybit", symbols=symbols) as (venue, client):
        await client.send(*requests("bybit", symbols[:10]))
        assert (await client.json())["success"] is True
        assert venue.violations == []
        await client.send(*requests("bybit", symbols))
        assert (await client.json())["success"] is False
        assert venue.violations == ["connection 1: 11 arguments in a request (at most 10)"]
        assert await lives(client, 5, 1, lambda: client.send(ping_of("bybit")))


async def test_kucoin_takes_100_symbols_in_a_request_and_300_on_a_connection(virtual_clock) -> None:
    symbols = [f"A{number}-USDT" for number in range(301)]
    async with client_of("kucoin", symbols=symbols) as (venue, client):
        for begin in (0, 100, 200):
            await client.send(*requests("kucoin", symbols[begin : begin + 100]))
            assert (await client.json())["type"] == "ack"
        assert venue.violations == []
        await client.send(*requests("kucoin", symbols[300:]))
        assert (await client.closed()).code == POLICY
        assert venue.violations == ["connection 1: 301 symbols (at most 300)"]
    async with client_of("kucoin", symbols=symbols) as (venue, client):
        await client.send(*requests("kucoin", symbols[:101]))
        assert (await client.closed()).code == POLICY
        assert venue.violations == ["connection 1: 101 symbols in a request (at most 100)"]


async def test_bitfinex_takes_25_channels_on_a_connection(virtual_clock) -> None:
    """One more is answered with an error, and the connection goes on."""
    symbols = [f"tA{number:02}USD" for number in range(26)]
    async with client_of("bitfinex", symbols=symbols) as (venue, client):
        await client.send(*requests("bitfinex", symbols[:25]))
        found = await client.quiet(1)
        assert (len(found), len(client.channels), venue.violations) == (50, 25, [])
        await client.send(*requests("bitfinex", symbols[25:]))
        assert (await client.json())["code"] == 10305
        assert venue.violations == ["connection 1: more than 25 channels"]


async def test_bitfinex_sends_a_heartbeat_in_each_channel(virtual_clock) -> None:
    async with client_of("bitfinex") as (venue, client):
        await client.send(*requests("bitfinex", venue.symbols))
        await client.quiet(1)
        beats = [json.loads(each) for each in await client.quiet(44.5)]
        assert sorted(beats) == sorted([[number, "hb"] for number in client.channels] * 3)


async def test_binance_takes_1024_streams_on_a_connection(virtual_clock) -> None:
    symbols = [f"A{number}USDT" for number in range(1_025)]
    async with client_of("binance", symbols=symbols) as (venue, client):
        await client.send(*requests("binance", symbols[:1_024]))
        assert (await client.json())["result"] is None
        assert venue.violations == []
        await client.send(*requests("binance", symbols[1_024:]))
        assert (await client.closed()).code == POLICY
        assert venue.violations == ["connection 1: 1025 symbols (at most 1024)"]


# ---- limits of connections ----


@pytest.mark.parametrize(
    ("kind", "most", "seconds"),
    [
        ("okx", 3, 1),
        ("kucoin", 30, 60),
        ("kraken", 150, 600),
        ("binance", 300, 300),
        ("bybit", 500, 300),
        ("bitfinex", 20, 60),
    ],
)
async def test_too_many_connections_are_refused(virtual_clock, kind: str, most: int, seconds: float) -> None:
    """The rule is the venue's; a smaller one of the same kind is tried."""
    async with FakeVenue(kind) as venue:
        assert venue._floor.attempts.rate == Rate(most, seconds)
        venue._floor.attempts = Window(Rate(3, 60.0))
        for _ in range(3):
            async with connected(await endpoint(venue.url)):
                pass
        assert venue.violations == []
        with pytest.raises(Refused) as refused:
            async with connected(await endpoint(venue.url)):
                pass
        assert refused.value.status == 429
        assert venue.violations == ["connections: 4 within 60 s (at most 3)"]
        await trio.sleep(61)
        async with connected(await endpoint(venue.url)):
            pass
        assert (venue.connections, len(venue.violations)) == (4, 1)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_wrong_path_is_refused(virtual_clock, kind: str) -> None:
    async with FakeVenue(kind) as venue:
        url = venue.url.replace("http://", "ws://")
        base = "/".join(url.split("/")[:3])
        with pytest.raises(Refused) as refused:
            async with connected(f"{base}/elsewhere"):
                pass
        assert refused.value.status == 404
        assert len(venue.violations) == 1


# ---- KuCoin's tokens ----


async def test_a_token_is_good_for_one_connection(virtual_clock) -> None:
    async with FakeVenue("kucoin") as venue:
        url = await endpoint(venue.url)
        async with connected(url):
            pass
        for wrong in (url, url.split("?")[0], f"{url.split('?')[0]}?token=x"):
            with pytest.raises(Refused) as refused:
                async with connected(wrong):
                    pass
            assert refused.value.status == 401
        assert venue.violations == [
            "connection refused: the token is unknown or used",
            "connection refused: no token",
            "connection refused: the token is unknown or used",
        ]
        assert venue.connections == 1
        async with connected(await endpoint(venue.url)):
            pass
        assert venue.connections == 2


async def test_tokens_are_given_at_one_path_to_any_body(virtual_clock) -> None:
    async with FakeVenue("kucoin") as venue:
        for body in (b"", b"{}", b"x" * 100_000):
            assert (await post(venue.url, "/api/v1/bullet-public", body))[0] == 200
        assert (await post(venue.url, "/api/v1/bullet-private"))[0] == 404
    async with FakeVenue("okx") as venue:
        assert (await post(venue.url.replace("ws:", "http:"), "/api/v1/bullet-public"))[0] == 404


async def test_a_message_before_the_welcome_is_a_violation(virtual_clock) -> None:
    async with FakeVenue("kucoin") as venue, connected(await endpoint(venue.url)) as client:
        await client.send(ping_of("kucoin"))
        assert (await client.closed()).code == POLICY
        assert venue.violations == ["connection 1: a message came before the greeting"]


# ---- the window ----


def test_a_window_rolls() -> None:
    """In any span of 10 s there are at most three; those that are too many count as well."""
    window = Window(Rate(3, 10.0))
    found = [window.excess(float(time)) is None for time in (0, 1, 9, 9.5, 10.5, 11, 19.6, 20.6)]
    assert found == [True, True, True, False, False, False, True, True]
    assert all(Window(None).excess(0.0) is None for _ in range(1_000))
