"""Fake venues speak the protocols of the real ones: each trade comes once, in the venue's own form."""

from __future__ import annotations

import json
import ssl
from pathlib import Path

import pytest
import trio
import trustme
from hypothesis import given
from hypothesis import strategies as st
from venue_client import Client, connected, endpoint, until
from venue_forms import GREETING, KINDS, SYMBOLS, UNITS, Seen, is_trade, requests, trades

from marketflow.adapters.exchange.fake_venues.faults import Faults
from marketflow.adapters.exchange.fake_venues.kinds import KINDS as MADE
from marketflow.adapters.exchange.fake_venues.limits import Window
from marketflow.adapters.exchange.fake_venues.protocol import Session
from marketflow.adapters.exchange.fake_venues.server import FakeVenue
from marketflow.adapters.exchange.fake_venues.trades import RECENT, Market, Trade
from marketflow.adapters.exchange.venues.registry import VENUES
from marketflow.commands.venue import KINDS as OFFERED

all_kinds = pytest.mark.parametrize("kind", KINDS)


class WallClock:
    """A wall clock that the test sets."""

    def __init__(self, time: int = 1_795_343_351_549) -> None:
        self.time = time

    def now(self) -> int:
        return self.time


def as_seen(kind: str, trade: Trade) -> Seen:
    """A trade as it should be read."""
    return Seen(
        trade.symbol,
        trade.id,
        trade.time // UNITS[kind],
        float(trade.price),
        float(trade.size),
        trade.side,
    )


async def subscribe(client: Client, kind: str, venue: FakeVenue) -> list[bytes]:
    """Subscribe to all symbols of the venue, and return the messages up to the last answer."""
    if kind == "kucoin":
        assert await client.json() == {"id": "abc", "type": "welcome"}
    await client.send(*requests(kind, venue.symbols))
    answers = [await client.text()]
    with trio.fail_after(10):
        while len(venue._floor.connections[-1].session.subscribed) < len(venue.symbols):
            answers.append(await client.text())
    return answers


async def read(client: Client, kind: str, count: int) -> list[Seen]:
    """The next trades, without those that are older than the subscription."""
    found: list[Seen] = []
    while len(found) < count:
        message = await client.text()
        if is_trade(kind, message):
            found += trades(kind, message, client.channels)
    return found


def by_symbol(found: list[Seen]) -> dict[str, list[Seen]]:
    """Venues that put many trades into a message write one symbol after the other."""
    sorted_: dict[str, list[Seen]] = {}
    for each in found:
        sorted_.setdefault(each.symbol, []).append(each)
    return sorted_


def test_all_kinds_are_tested_and_offered():
    """Each kind that can be read can also be tried without the internet."""
    assert {*MADE} == {*KINDS} == {*OFFERED} == {*VENUES}


@pytest.mark.parametrize("document", ["commands.md", "venues.md"])
def test_documents_have_all_kinds(document: str):
    text = (Path(__file__).parents[2] / "docs" / document).read_text(encoding="utf-8")
    assert [kind for kind in OFFERED if f"`{kind}`" not in text] == []


@all_kinds
@pytest.mark.parametrize("way", ["plain", "deflate", "fragments", "both"])
async def test_each_trade_comes_once_in_the_form_of_the_venue(kind: str, way: str) -> None:
    """Also compressed, in fragments, or both."""
    faults = Faults(fragments=3 if way in {"fragments", "both"} else 1)
    async with FakeVenue(kind, symbols=SYMBOLS[kind], seed=1, faults=faults) as venue:
        async with connected(await endpoint(venue.url), deflate=way in {"deflate", "both"}) as client:
            assert client.compressed == (way in {"deflate", "both"})
            await subscribe(client, kind, venue)
            await read_old(client, kind)
            made = [*venue.trade(30), *venue.trade(1), *venue.trade(7, venue.symbols[1])]
            found = await read(client, kind, 38)
            assert client.frames > 60 or way in {"plain", "deflate"} or kind in {"kraken", "bybit"}
        assert by_symbol(found) == by_symbol([as_seen(kind, each) for each in made])
        assert {each.side for each in found} == {"buy", "sell"}
        assert (venue.connections, venue.violations, list(venue.made)) == (1, [], made)


async def read_old(client: Client, kind: str) -> None:
    """Read the trades that OKX sends again on subscribing."""
    if kind == "okx":
        await read(client, kind, 2)


@all_kinds
async def test_trades_come_over_tls(kind: str) -> None:
    authority = trustme.CA()
    served, trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(served)
    authority.configure_trust(trusted)
    async with FakeVenue(kind, symbols=SYMBOLS[kind], ssl_context=served) as venue:
        assert venue.url.startswith(("wss://", "https://"))
        url = await endpoint(venue.url, trusted)
        async with connected(url, trust=trusted) as client:
            await subscribe(client, kind, venue)
            await read_old(client, kind)
            (made,) = venue.trade(1, venue.symbols[0])
            assert await read(client, kind, 1) == [as_seen(kind, made)]


@all_kinds
async def test_trades_come_at_the_rate(kind: str) -> None:
    """A pair has trades from its first subscription on, so a client can get all of them."""
    async with FakeVenue(kind, symbols=SYMBOLS[kind], rate=500) as venue:
        assert venue.made == []
        async with connected(await endpoint(venue.url)) as client:
            await subscribe(client, kind, venue)
            found = await read(client, kind, 200 + 2 * (kind == "okx"))
            made = [as_seen(kind, each) for each in venue.made]
    seen = by_symbol(found[2:] if kind == "okx" else found)
    for symbol, expected in by_symbol(made).items():
        assert seen[symbol] == expected[: len(seen[symbol])]
    assert len(found) >= 200


async def test_all_clients_get_the_same_trades_of_their_symbols() -> None:
    async with FakeVenue("gateio", symbols=SYMBOLS["gateio"]) as venue:
        async with connected(venue.url) as one, connected(venue.url) as other:
            await one.send(*requests("gateio", venue.symbols))
            await other.send(*requests("gateio", venue.symbols[:1]))
            for client, answers in ((one, 2), (other, 1)):
                for _ in range(answers):
                    await client.text()
            made = [as_seen("gateio", each) for each in venue.trade(20)]
            mine = [each for each in made if each.symbol == venue.symbols[0]]
            assert await read(one, "gateio", 20) == made
            assert await read(other, "gateio", len(mine)) == mine
        assert venue.connections == 2


# ---- the answers to subscriptions ----


async def answers_of(kind: str, symbols: list[str], listed: list[str]) -> list[dict]:
    """The answers to requests for these symbols, with `listed` on the venue."""
    async with FakeVenue(kind, symbols=listed, clock=WallClock()) as venue:
        async with connected(await endpoint(venue.url)) as client:
            if kind in GREETING:
                await client.text()
            await client.send(*requests(kind, symbols))
            found = [json.loads(each) for each in await client.quiet(0.2)]
            got = list(venue._floor.connections[0].session.subscribed)
        assert venue.violations == []
    return [*found, {"subscribed": got}]


async def test_binance_answers_a_subscription() -> None:
    assert await answers_of("binance", ["BTCUSDT"], ["btcusdt"]) == [
        {"result": None, "id": 1},
        {"subscribed": ["BTCUSDT"]},
    ]
    rejected, got = await answers_of("binance", ["BTCUSDT", "XUSDT"], ["BTCUSDT"])
    assert (rejected["code"], rejected["id"]) == (2, 1)
    assert "xusdt@trade" in rejected["msg"]
    assert got == {"subscribed": []}


async def test_binance_wants_streams_in_lower_case_and_numbers_as_ids() -> None:
    async with FakeVenue("binance", symbols=["BTCUSDT"]) as venue, connected(venue.url) as client:
        await client.send({"method": "SUBSCRIBE", "params": ["BTCUSDT@trade"], "id": 1})
        assert (await client.json())["code"] == 2
        await client.send({"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": "a"})
        assert (await client.json())["code"] == 2


async def test_binance_has_microseconds_if_the_url_asks_for_them() -> None:
    async with (
        FakeVenue("binance", symbols=["BTCUSDT"]) as venue,
        connected(f"{venue.url}?timeUnit=MICROSECOND") as client,
    ):
        await subscribe(client, "binance", venue)
        (made,) = venue.trade()
        assert (await client.json())["data"]["T"] == made.time // 1_000


async def test_coinbase_answers_a_subscription() -> None:
    """An old trade comes first, as `last_match`."""
    last, answer, _ = await answers_of("coinbase", ["BTC-USD"], ["BTC-USD"])
    assert (last["type"], last["product_id"]) == ("last_match", "BTC-USD")
    assert last["time"] < "2026-11-22T10:28:50"  # the clock shows 10:29:11
    assert answer == {
        "type": "subscriptions",
        "channels": [{"name": "matches", "product_ids": ["BTC-USD"], "account_ids": None}],
    }
    assert await answers_of("coinbase", ["BTC-USD", "X-USD"], ["BTC-USD"]) == [
        {"type": "error", "message": "Failed to subscribe", "reason": "X-USD is not a valid product"},
        {"subscribed": []},
    ]


async def test_kraken_answers_a_subscription() -> None:
    """Each symbol has an answer, and those that it does not know stop no other. BTC is not XBT."""
    first, bad, last, got = await answers_of(
        "kraken", ["BTC/USD", "XBT/EUR", "ETH/USD"], ["BTC/USD", "ETH/USD"]
    )
    assert (first["method"], first["success"]) == ("subscribe", True)
    assert first["result"] == {"channel": "trade", "symbol": "BTC/USD", "snapshot": False}
    assert last["result"]["symbol"] == "ETH/USD"
    assert (bad["method"], bad["success"], bad["symbol"]) == ("subscribe", False, "XBT/EUR")
    assert bad["error"] == "Currency pair not supported XBT/EUR"
    assert got == {"subscribed": ["BTC/USD", "ETH/USD"]}


@pytest.mark.parametrize("params", [{}, {"snapshot": True}])
async def test_kraken_sends_a_snapshot_unless_the_client_wants_none(params: dict) -> None:
    async with FakeVenue("kraken", symbols=["BTC/USD"]) as venue, connected(venue.url) as client:
        status = await client.json()
        assert (status["channel"], status["data"][0]["system"]) == ("status", "online")
        params = {"channel": "trade", "symbol": ["BTC/USD"], **params}
        await client.send({"method": "subscribe", "params": params, "req_id": 7})
        answer = await client.json()
        assert (answer["req_id"], answer["result"]["snapshot"]) == (7, True)
        snapshot = await client.text()
        assert json.loads(snapshot)["type"] == "snapshot"
        assert len(trades("kraken", snapshot)) == RECENT


async def test_okx_answers_a_subscription() -> None:
    """The last trade is sent again, as if it were new."""
    answer, last, bad, _ = await answers_of("okx", ["BTC-USDT", "X-USDT"], ["BTC-USDT"])
    assert (answer["event"], answer["arg"]) == ("subscribe", {"channel": "trades", "instId": "BTC-USDT"})
    assert int(last["data"][0]["ts"]) < WallClock().now() - 25_000
    assert (bad["event"], bad["code"]) == ("error", "60018")
    assert "X-USDT" in bad["msg"]


async def test_bybit_answers_a_subscription() -> None:
    answer, got = await answers_of("bybit", ["BTCUSDT"], ["BTCUSDT"])
    assert (answer["success"], answer["op"], answer["ret_msg"]) == (True, "subscribe", "subscribe")
    assert got == {"subscribed": ["BTCUSDT"]}
    bad, got = await answers_of("bybit", ["BTCUSDT", "XUSDT"], ["BTCUSDT"])
    assert (bad["success"], bad["op"]) == (False, "subscribe")
    assert "publicTrade.XUSDT" in bad["ret_msg"]
    assert got == {"subscribed": []}


async def test_bitstamp_answers_a_subscription_also_to_a_pair_that_it_does_not_have() -> None:
    assert await answers_of("bitstamp", ["btcusd", "xusd"], ["BTCUSD"]) == [
        {"event": "bts:subscription_succeeded", "channel": "live_trades_btcusd", "data": {}},
        {"event": "bts:subscription_succeeded", "channel": "live_trades_xusd", "data": {}},
        {"subscribed": ["btcusd"]},
    ]


async def test_one_bad_pair_fails_a_whole_list_of_gate() -> None:
    async with FakeVenue("gateio", symbols=["BTC_USDT"]) as venue, connected(venue.url) as client:
        for pairs in (["BTC_USDT", "X_USDT"], ["BTC_USDT"]):
            await client.send({"time": 1, "channel": "spot.trades", "event": "subscribe", "payload": pairs})
        bad, good = await client.json(), await client.json()
        assert bad["error"] == {"code": 2, "message": "unknown currency pair X_USDT"}
        assert (good["event"], good["result"]) == ("subscribe", {"status": "success"})


async def test_kucoin_answers_a_subscription() -> None:
    assert await answers_of("kucoin", ["BTC-USDT"], ["BTC-USDT"]) == [
        {"id": "1", "type": "ack"},
        {"subscribed": ["BTC-USDT"]},
    ]
    bad, got = await answers_of("kucoin", ["BTC-USDT", "X-USDT"], ["BTC-USDT"])
    assert (bad["id"], bad["type"], bad["code"]) == ("1", "error", 404)
    assert got == {"subscribed": []}


async def test_bitfinex_answers_a_subscription() -> None:
    """A snapshot of old trades follows, the newest first, in a channel that has a number."""
    answer, (number, old), bad, got = await answers_of("bitfinex", ["tBTCUSD", "tXBTUSD"], ["tBTCUSD"])
    named = {"channel": "trades", "symbol": "tBTCUSD", "pair": "BTCUSD"}
    assert answer == {"event": "subscribed", "chanId": number, **named}
    assert len(old) == 30
    assert old == sorted(old, reverse=True)
    assert old[0][1] <= WallClock().now() - 25_000
    named = {"channel": "trades", "symbol": "tXBTUSD", "pair": "XBTUSD"}
    assert bad == {"event": "error", "msg": "symbol: invalid", "code": 10300, **named}
    assert got == {"subscribed": ["tBTCUSD"]}


async def test_bitfinex_sends_each_trade_twice_and_numbers_channels_by_connection() -> None:
    async with (
        FakeVenue("bitfinex", symbols=["tBTCUSD"]) as venue,
        connected(venue.url) as one,
        connected(venue.url) as other,
    ):
        for client in (one, other):
            await client.send(*requests("bitfinex", venue.symbols))
        await until(lambda: all(each.session.subscribed for each in venue._floor.connections))
        venue.trade()
        for client in (one, other):
            while not is_trade("bitfinex", message := await client.text()):
                pass
            channel, _, trade = json.loads(message)
            assert await client.json() == [channel, "tu", trade]
            assert client.channels == {channel: "tBTCUSD"}
        assert one.channels.keys().isdisjoint(other.channels)


async def test_bitfinex_refuses_what_it_has_given_already() -> None:
    async with FakeVenue("bitfinex", symbols=["tBTCUSD"]) as venue, connected(venue.url) as client:
        await subscribe(client, "bitfinex", venue)
        await client.send(*requests("bitfinex", ["tBTCUSD"]))
        while isinstance(answer := await client.json(), list) or answer["event"] != "error":
            pass
        assert (answer["event"], answer["code"]) == ("error", 10301)


UNSUBSCRIBE = {
    "binance": {"method": "UNSUBSCRIBE", "params": ["btcusdt@trade"], "id": 2},
    "coinbase": {"type": "unsubscribe", "channels": [{"name": "matches", "product_ids": ["BTC-USD"]}]},
    "kraken": {"method": "unsubscribe", "params": {"channel": "trade", "symbol": ["BTC/USD"]}},
    "okx": {"op": "unsubscribe", "args": [{"channel": "trades", "instId": "BTC-USDT"}]},
    "bybit": {"op": "unsubscribe", "args": ["publicTrade.BTCUSDT"]},
    "bitstamp": {"event": "bts:unsubscribe", "data": {"channel": "live_trades_btcusd"}},
    "gateio": {"time": 1, "channel": "spot.trades", "event": "unsubscribe", "payload": ["BTC_USDT"]},
    "kucoin": {"id": 2, "type": "unsubscribe", "topic": "/market/match:BTC-USDT", "response": True},
}


@all_kinds
async def test_after_an_unsubscription_only_the_others_come(kind: str) -> None:
    async with FakeVenue(kind, symbols=SYMBOLS[kind]) as venue:
        first, second = venue.symbols
        async with connected(await endpoint(venue.url)) as client:
            await subscribe(client, kind, venue)
            await read_old(client, kind)
            while kind == "bitfinex" and len(client.channels) < len(venue.symbols):
                await client.text()
            channels = [number for number, symbol in client.channels.items() if symbol == first]
            await client.send(UNSUBSCRIBE.get(kind, {"event": "unsubscribe", "chanId": sum(channels)}))
            await until(lambda: len(venue._floor.connections[0].session.subscribed) == 1)
            venue.trade(3, first)
            (made,) = venue.trade(1, second)
            assert await read(client, kind, 1) == [as_seen(kind, made)]


NONSENSE = ("", "{", "null", "[]", "17", '"ping"', "{}", "[" * 3_000, '{"op":5}', '{"method":[]}', "\u2028")


FIELDS = (
    *("id", "method", "params", "type", "channels", "product_ids", "name", "channel", "symbol", "snapshot"),
    *("op", "args", "instId", "event", "data", "payload", "time", "topic", "response", "req_id"),
)
WORDS = (
    *("SUBSCRIBE", "UNSUBSCRIBE", "subscribe", "unsubscribe", "ping", "bts:subscribe", "spot.trades"),
    *("trade", "trades", "matches", "/market/match:BTC-USDT", 1, [["BTCUSDT"]], ["publicTrade.BTCUSDT"]),
)


@all_kinds
async def test_a_message_that_means_nothing_is_answered_with_an_error(kind: str) -> None:
    """Nothing that a client sends ends the venue."""
    async with FakeVenue(kind, symbols=SYMBOLS[kind]) as venue:
        for message in NONSENSE:
            venue._floor.attempts = Window(None)
            venue._floor.requests = Window(None)
            async with connected(await endpoint(venue.url)) as client:
                if kind in GREETING:
                    await client.text()
                await client.send(message)
                answer = (await client.text()).lower()
                assert any(sign in answer for sign in (b"err", b"invalid", b"false", b"incorrect")), message
                await client.send(*requests(kind, venue.symbols))
                await client.text()
        assert venue.violations == []


VALUES = st.sampled_from(
    (
        None,
        True,
        0,
        -1,
        2**70,
        1.5,
        "",
        "ping",
        [],
        {},
        [[]],
        [{}],
        ["x"],
        [None],
        {"channel": []},
        {"symbol": 1},
    )
)


@all_kinds
@given(st.binary() | st.dictionaries(st.sampled_from(FIELDS), VALUES | st.sampled_from(WORDS), min_size=2))
def test_no_message_is_too_strange(kind: str, message: bytes | dict) -> None:
    """Each is answered, and an error subscribes to nothing."""
    market = Market(SYMBOLS[kind], 1, WallClock())
    raw = message if isinstance(message, bytes) else json.dumps(message).encode()
    answer = MADE[kind]().answer(raw, Session(1, {}), market, WallClock().now() * 1_000_000)
    assert all(market.lists(symbol) for symbol in answer.subscribe)


# ---- the trades ----


def test_a_seed_gives_the_same_trades_at_other_times() -> None:
    """Only times and ids differ; the size of the steps does not matter."""

    def made(seed: int, time: int, steps: tuple[int, ...]) -> list[tuple]:
        market = Market(["BTCUSDT", "ETHUSDT"], seed, WallClock(time))
        market.open("BTCUSDT")
        market.open("ETHUSDT")
        begin = {symbol: market.recent(symbol, 1)[0].id for symbol in market.symbols}
        for step in steps:
            market.trade(step)
        return [
            [
                (each.id - begin[each.symbol], each.price, each.size, each.side)
                for each in market.made
                if each.symbol == symbol
            ]
            for symbol in market.symbols
        ]

    now = 1_795_343_351_549
    once = made(5, now, (60,))
    assert once == made(5, now + 86_400_000, (60,))
    assert once != made(6, now, (60,))
    for few, many in zip(made(5, now, (1,) * 40), once, strict=True):
        assert few[:15] == many[:15]


def test_trades_are_in_order_with_contiguous_ids_and_sensible_prices() -> None:
    clock = WallClock()
    market = Market(["BTC-USD", "DOGE-USD", "ABC-USD"], 1, clock)
    for symbol in market.symbols:
        market.open(symbol)
    for _ in range(50):
        clock.time += 7
        market.trade(100)
    assert [each.time for each in market.made] == sorted({each.time for each in market.made})
    for symbol, start in (("BTC-USD", 100_000), ("DOGE-USD", 0.3), ("ABC-USD", 100)):
        mine = [each for each in market.made if each.symbol == symbol]
        before = market.recent(symbol, RECENT)
        assert [each.id for each in mine] == list(range(mine[0].id, mine[0].id + len(mine)))
        assert list(before) == mine[-RECENT:]
        assert len(mine) > 1_000
        assert all(start / 4 <= float(each.price) <= start * 4 for each in mine)
        assert all(float(each.size) > 0 for each in mine)
        assert {each.side for each in mine} == {"buy", "sell"}


def test_a_venue_that_is_started_again_repeats_no_ids() -> None:
    first = Market(["BTCUSDT"], 1, WallClock(1_795_343_351_549))
    first.open("BTCUSDT")
    first.trade(900)
    assert (
        Market(["BTCUSDT"], 1, WallClock(1_795_343_351_550)).recent("BTCUSDT", RECENT)[0].id
        > first.made[-1].id
    )


def test_only_some_trades_are_kept_if_wanted() -> None:
    market = Market(["BTCUSDT"], 1, WallClock(), keep=10)
    market.open("BTCUSDT")
    for _ in range(100):
        market.trade(3)
    assert 10 <= len(market.made) <= 20
    assert market.count == 300
