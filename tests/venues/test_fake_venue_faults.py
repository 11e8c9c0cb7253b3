"""Fake venues have the faults that are ordered, and no others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock
from venue_client import HOURS, LIMIT, Client, Refused, connected, endpoint, until
from venue_forms import GREETING, KINDS, SYMBOLS, UNITS, is_trade, requests, trades

from marketflow.adapters.exchange.fake_venues.faults import GARBAGE, OVERSIZE, SPOILS, Faults
from marketflow.adapters.exchange.fake_venues.plan import NOTICE, Plan, follow
from marketflow.adapters.exchange.fake_venues.server import FakeVenue

all_kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def virtual_clock() -> MockClock:
    """Time stands still while bytes are on their way, so minutes pass at once."""
    return MockClock(autojump_threshold=0.01)


@asynccontextmanager
async def subscribed(kind: str, limit: float = LIMIT, **options) -> AsyncIterator[tuple[FakeVenue, Client]]:
    """A venue with two pairs, and a client that has read all answers. `limit`: seconds for a message."""
    async with (
        FakeVenue(kind, symbols=SYMBOLS[kind], **options) as venue,
        connected(await endpoint(venue.url), limit=limit) as client,
    ):
        await subscribe(client, kind, venue)
        yield venue, client


async def subscribe(client: Client, kind: str, venue: FakeVenue) -> None:
    if kind in GREETING:
        await client.text()
    await client.send(*requests(kind, venue.symbols))
    answers = {"coinbase": 3, "kraken": 2, "okx": 4, "bitstamp": 2, "gateio": 2, "bitfinex": 4}.get(kind, 1)
    for _ in range(answers):
        await client.text()


async def ids(client: Client, kind: str, count: int) -> list[int]:
    """The ids of the next trades."""
    found: list[int] = []
    while len(found) < count:
        message = await client.text()
        if is_trade(kind, message):
            found += [each.id for each in trades(kind, message)]
    return found


# ---- silence ----


@all_kinds
async def test_a_mute_venue_sends_nothing_but_pongs(kind: str) -> None:
    """What is made meanwhile is lost; ids show it."""
    async with subscribed(kind) as (venue, client):
        venue.mute()
        lost = venue.trade(5)
        await client.ping()
        await until(lambda: venue.open == 1)
        assert await client.quiet(0.3) == []
        assert client.pongs == 1
        venue.unmute()
        (made,) = venue.trade()
        assert await ids(client, kind, 1) == [made.id]
        assert list(venue.made) == [*lost, made]


@all_kinds
async def test_a_venue_that_is_wholly_mute_answers_nothing(kind: str) -> None:
    """Neither pings nor new connections."""
    async with subscribed(kind) as (venue, client):
        url = await endpoint(venue.url)
        venue.mute("all")
        venue.trade(5)
        await client.ping()
        assert await client.quiet(0.3) == []
        assert client.pongs == 0
        with trio.move_on_after(0.3) as limit:
            async with connected(url):
                pass
        assert limit.cancelled_caught
        venue.unmute()
        (made,) = venue.trade()
        assert await ids(client, kind, 1) == [made.id]
        assert venue.violations == []


async def test_a_client_breaks_no_rule_while_the_venue_is_wholly_mute(virtual_clock) -> None:
    """It gets no pings, and so sends no pongs."""
    async with subscribed("binance", HOURS) as (venue, client):
        venue.mute("all")
        await client.quiet(200)
        assert (venue.violations, venue.open) == ([], 1)


async def test_silence_in_turn(virtual_clock) -> None:
    async with subscribed("gateio", HOURS, rate=10) as (venue, client), trio.open_nursery() as nursery:
        nursery.start_soon(follow, Plan(silence=5.0), venue)
        begin = trio.current_time()
        times = set()
        with trio.move_on_after(20):
            while True:
                await client.text()
                times.add(int(trio.current_time() - begin))
        nursery.cancel_scope.cancel()
    assert times == {0, 1, 2, 3, 4, 10, 11, 12, 13, 14}


# ---- ends of connections ----


@all_kinds
async def test_a_reset_ends_connections_without_a_close(kind: str) -> None:
    async with subscribed(kind) as (venue, client):
        venue.reset()
        assert (await client.closed()).code == 1006
        await until(lambda: venue.open == 0)
        assert venue.violations == []


@all_kinds
async def test_a_cut_closes_connections(kind: str) -> None:
    async with subscribed(kind) as (venue, client):
        venue.cut(1011, "out of order")
        closed = await client.closed()
        assert (closed.code, closed.reason) == (1011, "out of order")
        await until(lambda: venue.open == 0)


NOTICES = {
    "binance": {"e": "serverShutdown"},
    "kraken": {"channel": "status", "type": "update"},
    "okx": {"event": "notice", "code": "64008"},
    "bitstamp": {"event": "bts:request_reconnect"},
    "bitfinex": {"event": "info", "code": 20051},
}


@all_kinds
async def test_a_maintenance_is_announced_in_the_form_of_the_venue(virtual_clock, kind: str) -> None:
    """And then the connections are cut. New ones are not."""
    async with subscribed(kind, HOURS) as (venue, client):
        begin = trio.current_time()
        venue.maintain(3.5)
        if kind in NOTICES:
            notice = await client.json()
            assert NOTICES[kind].items() <= notice.items()
            assert kind != "kraken" or notice["data"][0]["system"] == "maintenance"
        async with connected(await endpoint(venue.url), limit=HOURS) as other:
            closed = await client.closed()
            assert (closed.code, trio.current_time() - begin) == (1012, pytest.approx(3.5, abs=0.1))
            await subscribe(other, kind, venue)
            (made,) = venue.trade()
            assert await ids(other, kind, 1) == [made.id]
        assert venue.violations == []


async def test_kraken_takes_one_connection_in_five_seconds_after_a_maintenance(virtual_clock) -> None:
    async with subscribed("kraken", HOURS) as (venue, _):
        venue.maintain(0.1)
        await trio.sleep(1)
        async with connected(venue.url):
            pass
        with pytest.raises(Refused):
            async with connected(venue.url):
                pass
        assert venue.violations == ["connections: 2 within 5 s (at most 1)"]


async def test_maintenance_and_resets_that_repeat(virtual_clock) -> None:
    async with FakeVenue("okx") as venue, trio.open_nursery() as nursery:
        nursery.start_soon(follow, Plan(maintenance=20.0), venue)
        async with connected(venue.url, limit=HOURS) as client:
            assert (await client.json())["event"] == "notice"
            assert trio.current_time() == pytest.approx(20, abs=0.1)
            assert (await client.closed()).code == 1012
            assert trio.current_time() == pytest.approx(20 + NOTICE, abs=0.1)
        nursery.cancel_scope.cancel()
    async with FakeVenue("okx") as venue, trio.open_nursery() as nursery:
        nursery.start_soon(follow, Plan(reset=7.0), venue)
        begin = trio.current_time()
        for number in (1, 2):
            async with connected(venue.url, limit=HOURS) as client:
                assert (await client.closed()).code == 1006
                assert trio.current_time() - begin == pytest.approx(7 * number, abs=0.1)
        nursery.cancel_scope.cancel()


@all_kinds
async def test_connections_are_refused(kind: str) -> None:
    async with FakeVenue(kind) as venue:
        url = await endpoint(venue.url)
        venue.refuse()
        with pytest.raises(Refused) as refused:
            async with connected(url):
                pass
        assert refused.value.status == 429
        assert (venue.connections, venue.violations) == (0, [])
        venue.accept()
        async with connected(url):
            pass
        assert venue.connections == 1


async def test_a_client_that_does_not_read_is_dropped() -> None:
    """It holds up nobody, and memory stays bounded."""
    async with subscribed("gateio") as (venue, lazy):
        async with connected(venue.url) as client:
            await subscribe(client, "gateio", venue)
            for _ in range(200):
                venue.trade(1_000)
                await ids(client, "gateio", 1_000)
                if venue.open == 1:
                    break
            assert venue.open == 1
            (made,) = venue.trade()
            assert await ids(client, "gateio", 1) == [made.id]
        assert (await lazy.closed()).code == 1006


NONSENSE = (
    b"",
    b"\x00" * 1_000,
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET /ws/v4/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST / HTTP/9\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n123",
    b"x" * 100_000,
)


async def test_a_client_that_talks_nonsense_ends_only_its_own_connection() -> None:
    async with subscribed("gateio") as (venue, client):
        for sent in NONSENSE:
            async with await trio.open_tcp_stream(
                "127.0.0.1", int(venue.url.split(":")[2].split("/")[0])
            ) as raw:
                with suppress(trio.BrokenResourceError):  # the venue may be quicker
                    await raw.send_all(sent)
                    await raw.send_eof()
                    while await raw.receive_some(65_536):
                        pass
        for frame in (
            b"\x81\x02hi",
            b"\xff\xff" * 20,
            b"\x81\xff" + b"\xff" * 12,
        ):  # not masked, reserved, giant
            async with connected(venue.url) as other:
                await other._stream.send_all(frame)
                assert (await other.closed()).code in {1002, 1009}
        (made,) = venue.trade()
        assert await ids(client, "gateio", 1) == [made.id]
        await until(lambda: venue.open == 1)


# ---- trades ----


@all_kinds
async def test_a_price_that_is_no_number(kind: str) -> None:
    async with subscribed(kind) as (venue, client):
        venue.spoil("nan")
        bad, good = venue.trade(2, venue.symbols[0])
        text = b"".join([await client.text() for _ in range(1 if kind in {"kraken", "bybit"} else 2)])
        assert (b":NaN" in text) == (kind in {"kraken", "bitstamp"})
        assert text.count(b"NaN") == (2 if kind in {"bitstamp", "bitfinex"} else 1)
        assert (list(venue.spoiled), list(venue.made)) == ([bad], [bad, good])


@all_kinds
async def test_a_wrong_unit_of_time(kind: str) -> None:
    async with subscribed(kind) as (venue, client):
        venue.spoil("unit")
        (made,) = venue.trade()
        (seen,) = trades(kind, await client.text())
        assert seen.time == made.time // 1_000 // UNITS[kind]
        assert venue.spoiled == [made]


@all_kinds
async def test_trades_come_late_and_twice(kind: str) -> None:
    async with subscribed(kind) as (venue, client):
        venue.spoil("late", "late", "duplicate")
        venue.trade(4, venue.symbols[0])
        found = await ids(client, kind, 5)
        first = venue.made[0].id
        assert [each - first for each in found] == [0, 2, 2, 1, 3]
        assert (venue.spoiled, venue.faults.ordered) == ([], type(venue.faults.ordered)())


@all_kinds
async def test_garbage_and_giant_messages_come_between_trades(kind: str) -> None:
    """No trade is lost by them."""
    async with subscribed(kind) as (venue, client):
        venue.spoil("garbage", "oversize")
        made = [venue.trade()[0], venue.trade()[0]]
        messages = []
        while len(messages) < 4:
            message = await client.text()
            if b'"tu"' not in message:
                messages.append(message)
        assert messages[0] in GARBAGE
        assert len(messages[2]) == OVERSIZE
        assert [trades(kind, each)[0].id for each in messages[1::2]] == [each.id for each in made]
        assert venue.spoiled == []


async def test_fractions_of_trades_are_spoiled() -> None:
    faults = Faults(fractions={"duplicate": 0.25})
    async with subscribed("okx", faults=faults, seed=3) as (venue, client):
        venue.trade(1_000)
        sent = [each.id for each in venue.made]
        found = await ids(client, "okx", 1_200)
        twice = sum(one == other for one, other in pairwise(found))
        assert 200 < twice < 320
        assert {*found} <= {*sent}


async def test_old_trades_are_sent_again() -> None:
    async with FakeVenue("binance", symbols=["BTCUSDT"]) as venue:
        venue.faults.resend = 3
        venue._floor.market.open("BTCUSDT")
        made = venue.trade(10)
        async with connected(venue.url) as client:
            await subscribe(client, "binance", venue)
            (new,) = venue.trade()
            assert await ids(client, "binance", 4) == [each.id for each in (*made[-3:], new)]


@all_kinds
async def test_a_delisted_pair_has_no_more_trades_and_the_others_go_on(kind: str) -> None:
    """A new subscription to it is rejected, in the form of the venue; Bitstamp's succeeds."""
    async with subscribed(kind) as (venue, client):
        gone, kept = venue.symbols
        venue.delist(gone)
        venue.trade(20)
        assert {each.symbol for each in venue.made} == {kept}
        assert await ids(client, kind, 20) == [each.id for each in venue.made]
        async with connected(await endpoint(venue.url)) as other:
            if kind in GREETING:
                await other.text()
            await other.send(*requests(kind, [gone]))
            answer = (await other.text()).lower()
            rejected = b"error" in answer or b"invalid" in answer or b'"success":false' in answer
            assert rejected == (kind != "bitstamp")
            await other.send(*requests(kind, [kept]))
            await other.text()
        assert venue.violations == []


async def test_compression_is_off_if_wanted() -> None:
    async with FakeVenue("okx") as venue:
        venue.faults.deflate = False
        async with connected(venue.url, deflate=True) as client:
            assert not client.compressed


@pytest.mark.parametrize("deflate", [True, False])
async def test_fragments(deflate: bool) -> None:
    """Each message comes in so many frames, and is the same."""
    async with FakeVenue("okx", symbols=SYMBOLS["okx"]) as venue:
        venue.faults.fragments = 4
        async with connected(venue.url, deflate=deflate) as client:
            await subscribe(client, "okx", venue)
            frames = client.frames
            made = venue.trade(10)
            assert await ids(client, "okx", 10) == [each.id for each in made]
            assert client.frames - frames == 40


def test_all_spoils_are_offered() -> None:
    from marketflow.commands.venue import venue as command  # noqa: PLC0415

    assert {*SPOILS} <= {option.name for option in command.params}
