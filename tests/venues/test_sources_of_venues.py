"""The source of each venue against the fake one: faults that come one at a time."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack
from itertools import pairwise

import pytest
import trio
import trio.testing
from venue_forms import KINDS, SYMBOLS
from venue_world import START, World, ours, running

from marketflow.adapters.exchange.fake_venues.faults import Faults
from marketflow.adapters.exchange.venues.registry import VENUES
from marketflow.adapters.exchange.websocket.budget import Budget
from marketflow.adapters.exchange.websocket.subscriptions import PATIENCE

all_kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def virtual_clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


def pairs_of(kind: str, count: int) -> list[str]:
    """Many pairs, as the venue spells them."""
    _, pair = SYMBOLS[kind]
    letters = [chr(ord("A") + number) for number in range(count)]
    names = [f"{letter}{letter}{letter}" for letter in letters]
    return [pair.replace("ETH", name).replace("eth", name.lower()) for name in names]


async def trades_come(world: World, symbols: list[str]) -> None:
    """A trade of each symbol comes, once."""
    before = len(world.rows)
    for symbol in symbols:
        world.send(world.made(1, symbol))
    await trio.sleep(1)
    assert Counter(row[0] for row in world.rows[before:]) == Counter(map(ours, symbols))


# ---- subscriptions ----


@all_kinds
async def test_bad_symbols_in_a_batch_cost_no_other(virtual_clock, kind: str) -> None:
    symbols = pairs_of(kind, 14)
    bad = {symbols[3], symbols[4], symbols[13]}
    good = [symbol for symbol in symbols if symbol not in bad]
    async with running(kind, symbols, listed=good) as world:
        await world.live()
        assert {*world.connections[0].session.subscribed} == {*good}
        refused = set() if kind == "bitstamp" else set(map(ours, bad))
        assert {*world.source.rejected_symbols} == refused
        await trades_come(world, good)
        assert world.violations == []


@all_kinds
async def test_a_symbol_that_is_refused_on_a_connection_may_be_accepted_on_the_next(
    virtual_clock, kind: str
) -> None:
    first, second = SYMBOLS[kind]
    async with running(kind, [first, second]) as world:
        world.delist(second)
        await world.live()
        assert {*world.source.rejected_symbols} == (set() if kind == "bitstamp" else {ours(second)})
        await trades_come(world, [first])
        world._floor.market._pairs[second] = world._floor.market._pairs[first].__class__(second, 1, START)
        world.cut(1001)
        await world.live(2)
        assert world.source.rejected_symbols == {}
        await trades_come(world, [first, second])


@all_kinds
@pytest.mark.parametrize("late", [4.0, PATIENCE + 2])
async def test_answers_that_come_late_count(virtual_clock, kind: str, late: float) -> None:
    """Trades count meanwhile. Bitfinex sends none before its answer, which has the number of the channel."""
    symbols = [*SYMBOLS[kind]]
    async with running(kind, symbols) as world:
        world.side.answers_after = late
        await world.until(lambda: world.connections and len(world.connections[0].session.subscribed) == 2)
        asked = trio.current_time()
        while trio.current_time() < asked + late - 1:
            await trio.sleep(0.5)
            await trades_come(world, symbols if kind != "bitfinex" else [])
        await trio.sleep(3)
        assert len(world.side.opened) == 1
        assert world.source.activity == "live"
        assert world.source._present.subscriber.subscriptions.states == dict.fromkeys(symbols, "accepted")
        assert world.violations == []


@all_kinds
async def test_a_renewal_begins_while_symbols_are_still_refused(virtual_clock, kind: str) -> None:
    symbols = pairs_of(kind, 12)
    good = symbols[:-2]
    async with running(kind, symbols, listed=good) as world:
        world.side.answers_after = 0.5
        await world.until(lambda: world.connections and world.connections[0].session.subscribed)
        world.maintain(20.0)
        await world.until(lambda: world.feed.connected and world.source.activity == "live")
        await trio.sleep(30)
        await world.live()
        refused = set() if kind == "bitstamp" else set(map(ours, symbols[-2:]))
        assert {*world.source.rejected_symbols} == refused
        await trades_come(world, good)
        assert world.violations == []


# ---- signs of life ----


@all_kinds
async def test_a_quiet_connection_is_kept_for_an_hour(virtual_clock, kind: str) -> None:
    """Nobody trades, and the venue breaks nothing off."""
    async with running(kind, [*SYMBOLS[kind]]) as world:
        await world.live()
        await trio.sleep(3_600)
        assert (len(world.side.opened), world.violations, world.source.activity) == (1, [], "live")
        assert trio.current_time() - (world.source.heard_at or 0.0) <= VENUES[kind].rules.silence / 2
        assert trio.current_time() - (world.source.well_at or 0.0) <= VENUES[kind].rules.silence / 2
        await trades_come(world, [*SYMBOLS[kind]])


@all_kinds
async def test_a_venue_that_is_wholly_mute_is_left_in_time(virtual_clock, kind: str) -> None:
    """Then it cannot be connected to. Once it speaks again its trades come."""
    async with running(kind, [*SYMBOLS[kind]]) as world:
        await world.live()
        heard_at = trio.current_time()
        world.mute("all")
        await world.until(lambda: not world.feed.connected)
        assert trio.current_time() - heard_at <= VENUES[kind].rules.silence + 25
        assert "no sign of life" in (world.feed.state.last_error or "")
        await trio.sleep(30)
        world.unmute()
        await world.live(2)
        await trades_come(world, [*SYMBOLS[kind]])
        assert world.violations == []


# ---- ends of connections ----


@all_kinds
@pytest.mark.parametrize("code", [1000, 1001, 1006, 1008, 1011, 1012, 1013, 3000, 4999])
async def test_any_end_leads_to_another_connection_and_is_reported(
    virtual_clock, kind: str, code: int
) -> None:
    async with running(kind, [*SYMBOLS[kind]]) as world:
        await world.live()
        if code == 1006:
            world.reset()
        else:
            world.cut(code, "because")
        await world.until(lambda: not world.feed.connected)
        reason = " without a reason" if code == 1006 else f": {code} because"
        assert world.feed.state.last_error == f"closed by the exchange{reason}"
        await world.live(2)
        least = VENUES[kind].rules.least_pause
        assert world.side.attempts[-1] - world.side.attempts[0] >= least
        await trades_come(world, [*SYMBOLS[kind]])


@all_kinds
async def test_an_announced_maintenance_loses_nothing(virtual_clock, kind: str) -> None:
    """Trades go on all the while. Who does not announce it loses what comes before the next connection."""
    async with running(kind, [*SYMBOLS[kind]]) as world:
        await world.live()
        announces = world._floor.kind.notice(0) is not None
        sent = 0
        world.maintain(12.0)
        for _ in range(400):
            if world.connections and any(len(each.session.subscribed) == 2 for each in world.connections):
                sent += 2
                world.send(world.made(1, SYMBOLS[kind][0]))
                world.send(world.made(1, SYMBOLS[kind][1]))
            await trio.sleep(0.05)
        await trio.sleep(1)
        assert len(world.side.opened) == 2
        assert len(world.rows) == sent
        assert (world.feed.reconnects == 0) == announces
        assert (sent == 800) == announces
        assert world.violations == []


async def test_two_exchanges_of_a_kind_keep_the_limit_after_a_maintenance_together(virtual_clock) -> None:
    """Kraken wants one attempt in 5 s then. Both notice the maintenance at the same time."""
    budget = Budget.of(VENUES["kraken"].rules)
    async with (
        running("kraken", ["BTC/USD"], budget=budget) as one,
        running("kraken", ["ETH/USD"], budget=budget) as other,
    ):
        await one.live()
        await other.live()
        one.maintain(9.0)
        other.maintain(9.0)
        await one.live(2)
        await other.live(2)
        attempts = sorted([*one.side.attempts, *other.side.attempts])
        pauses = [later - earlier for earlier, later in pairwise(attempts)]
        assert min(pauses) >= 5
        assert one.violations == other.violations == []


@pytest.mark.parametrize("kind", ["binance", "kucoin"])
async def test_a_day_ends_without_a_loss(virtual_clock, kind: str) -> None:
    """The next connection is there before the venue ends this one after 24 h."""
    async with running(kind, [*SYMBOLS[kind]]) as world:
        await world.live()
        for _ in range(24 * 60 + 10):
            await trades_come(world, [*SYMBOLS[kind]])
            await trio.sleep(59)
        assert (len(world.side.opened), world.feed.reconnects, world.violations) == (2, 0, [])
        assert set(world.rejected) <= {"duplicate"}


@all_kinds
async def test_a_venue_that_ends_each_connection_at_once_is_not_stormed(virtual_clock, kind: str) -> None:
    async with running(kind, [*SYMBOLS[kind]]) as world:
        for _ in range(25):
            opened = len(world.side.opened)
            await world.until(lambda before=opened: len(world.side.opened) > before, every=0.5)
            world.cut(1013, "try again later")
        attempts = world.side.attempts[:: 2 if kind == "kucoin" else 1]
        assert attempts[-1] - attempts[0] > 300
        assert max(later - earlier for earlier, later in pairwise(attempts)) <= 60 + 20
        assert world.violations == []


async def test_three_exchanges_at_coinbase_keep_its_limit_of_an_address_together(virtual_clock) -> None:
    """Eight requests a second. Each of them has six to send at once, and again after each connection."""
    symbols = [f"A{number:03}-USD" for number in range(900)]
    budget = Budget.of(VENUES["coinbase"].rules)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(
            running("coinbase", symbols[::3], listed=symbols, budget=budget)
        )
        others = [
            await stack.enter_async_context(
                running("coinbase", symbols[place::3], floor=first.floor, budget=budget)
            )
            for place in (1, 2)
        ]
        worlds = (first, *others)
        for opened in (1, 2):
            for world in worlds:
                await world.live(opened)
            first.cut(1001)
        for world in worlds:
            await world.live(3)
        assert first.violations == []


# ---- KuCoin's tokens ----


async def test_tokens_that_cannot_be_had_are_asked_for_with_pauses(virtual_clock) -> None:
    async with running("kucoin", [*SYMBOLS["kucoin"]], faults=Faults(refused=1.0)) as world:
        await trio.sleep(600)
        assert "the request for a token was answered 429" in (world.feed.state.last_error or "")
        assert world.side.opened == []
        attempts = world.side.attempts
        assert 10 < len(attempts) < 60
        assert min(later - earlier for earlier, later in pairwise(attempts)) >= 1
        world.accept()
        await world.live()
        await trades_come(world, [*SYMBOLS["kucoin"]])
        assert world.violations == []


async def test_each_connection_to_kucoin_has_a_token_of_its_own(virtual_clock) -> None:
    """Also those that replace another one."""
    async with running("kucoin", [*SYMBOLS["kucoin"]], faults=Faults(lifetime=None)) as world:
        await world.live()
        world.cut(1001)
        await world.live(2)
        tokens = [each.session.query["token"] for each in world.side.opened]
        assert len({*tokens}) == len(tokens) == 2
        assert world.violations == []


# ---- clocks ----


@all_kinds
@pytest.mark.parametrize("ahead", [-4_000, 3_000])
async def test_a_clock_that_is_wrong_by_seconds_costs_no_trade_for_long(
    virtual_clock, kind: str, ahead: int
) -> None:
    """Ours is behind or ahead. What seems older than our question is not counted until it is not."""
    async with running(kind, [*SYMBOLS[kind]], ahead=ahead) as world:
        await world.live()
        await trio.sleep(max(ahead, 0) / 1_000)
        await trades_come(world, [*SYMBOLS[kind]])
        assert set(world.rejected) <= {"duplicate"}
