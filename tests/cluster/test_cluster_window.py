"""The window of a term in a Redis Cluster: what every window does, and what happens when a slot moves."""

from __future__ import annotations

from functools import partial

import pytest
import test_window_contract as contract
import trio
from cluster_servers import (
    begin_move,
    end_move,
    move_atomically,
    move_key_by_key,
    slot_owner,
    until,
)
from load import Load, TermsInCluster, eventually, loads
from redis_filling import fields_of
from servers import free_port
from slow_machine import answered
from terms import EXCHANGE, seal, sure
from test_term_window import CONTRACT
from test_window_contract import NOON, bar, edge, put, run_of

from marketflow.adapters.cache.node import open_node_redis
from marketflow.adapters.cache.redirects import Address
from marketflow.adapters.cache.slots import slot_of
from marketflow.app.ports import START, StoreAway, StoreUnfit, Term
from marketflow.domain.periods import MINUTE, SECOND, Span

pytestmark = pytest.mark.alone

globals().update({name: getattr(contract, name) for name in CONTRACT})


@pytest.fixture(autouse=True)
def _one_exchange(monkeypatch):
    monkeypatch.setattr(contract, "OTHER", (EXCHANGE, "ETHUSDT"))


@pytest.fixture
def place(cluster):
    return TermsInCluster(cluster)


@pytest.fixture
async def window(place):
    async with place.open("t1") as window:
        yield window


def bars_of(exchange, number=0, term="t1"):
    second = NOON + number * SECOND
    return [((exchange, "BTCUSDT"), (second, term), bar(second, number + 1.0))]


# ---- where exchanges are ----


async def test_each_exchange_is_on_its_master(cluster, place, exchanges):
    """Questions about all of them are asked of all, and what they answer is put together in order."""
    pairs = [(exchange, "BTCUSDT") for exchange in exchanges]
    async with place.node() as node:
        for number, exchange in enumerate(exchanges):
            async with node.window(Term(exchange, 1, "t1"), sure) as window:
                await seal(window)
                times = [NOON + n for n in range(number + 1)]
                await put(window, run_of(times, pair=pairs[number]), bars=bars_of(exchange, number))
            with cluster.owner(exchange).client() as client:
                held = {key for key in client.keys("*") if b"{%b}" % exchange.encode() in key}
                assert held == set(client.keys("*"))
                assert len(held) == 5
        span = Span(NOON, NOON + SECOND)
        asked = [(pair, span) for pair in (pairs[2], pairs[0], pairs[1], pairs[0])]
        reading = node.reading
        assert list(await reading.counts(asked)) == [3, 1, 2, 1]
        assert [len(each) for each in await reading.prices(asked)] == [3, 1, 2, 1]
        assert [len(each) for each in await reading.updates(asked)] == [3, 1, 2, 1]
        found = await reading.edges(pairs, [span])
        assert [found[pair][0].bar.count for pair in pairs] == [1, 2, 3]
        bars = {
            pair: {field: whole} for pair in pairs for _, field, whole in bars_of(*_numbered(pair, pairs))
        }
        assert fields_of(await reading.all_bars(pairs)) == bars
        for number, exchange in enumerate(exchanges):
            (change,) = await node.changes.after(exchange, START)
            assert list(change.bars) == bars_of(exchange, number)
            assert await node.changes.end(exchange) == change.place == "1-1"


def _numbered(pair, pairs):
    return pair[0], pairs.index(pair)


async def test_another_term_is_fenced(place):
    async with place.open("t1") as window:
        await put(window, run_of([NOON]))
        async with place.open("t2"):
            with pytest.raises(StoreAway, match="changed"):
                await put(window, run_of([NOON + 1], first=1))
            assert (await edge(window, NOON, NOON + SECOND)).bar.count == 1


# ---- which clusters fit ----


async def test_a_cluster_that_requires_full_coverage_is_unfit(cluster, place, exchanges):
    member = cluster.owner(exchanges[1])
    member.ask("CONFIG", "SET", "cluster-require-full-coverage", "yes")
    try:
        async with place.node() as node:
            for _ in range(2):
                with pytest.raises(StoreUnfit, match=f":{member.port} has cluster-require-full-coverage yes"):
                    await node.changes.end(EXCHANGE)
            member.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
            assert await node.changes.end(EXCHANGE) == START
    finally:
        member.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")


async def test_a_server_of_no_cluster_is_unfit(redis_server):
    at = Address("127.0.0.1", redis_server.port)
    async with open_node_redis("redis://nowhere", [at], window_length=MINUTE, timeout=10) as node:
        for ask in (
            lambda: node.changes.end(EXCHANGE),
            lambda: node.reading.counts([((EXCHANGE, "BTCUSDT"), Span(NOON, NOON + 1))]),
        ):
            with pytest.raises(StoreUnfit, match="belongs to no Redis Cluster"):
                await ask()


async def test_one_server_is_enough_to_find_the_others(cluster, exchanges):
    """Some may be away, and of replicas only their masters are asked."""
    gone = Address("127.0.0.1", free_port())
    async with open_node_redis(
        "redis://nowhere", [gone, cluster.members[-1].at], window_length=MINUTE, timeout=10
    ) as node:
        assert [await node.changes.end(exchange) for exchange in exchanges] == [START] * 3


async def test_nobody_there(exchanges):
    gone = Address("127.0.0.1", free_port())
    async with open_node_redis("redis://nowhere", [gone], window_length=MINUTE, timeout=10) as node:
        for _ in range(2):
            with pytest.raises(StoreAway):
                await node.changes.end(exchanges[0])


@pytest.mark.parametrize("url", ["unix:///tmp/redis.sock", "redis://127.0.0.1:6379/3"])
async def test_a_url_that_is_not_one_for_a_cluster(url):
    with pytest.raises(ValueError, match="Redis Cluster"):
        async with open_node_redis(url, [Address("h", 1)], window_length=MINUTE, timeout=1):
            pass


# ---- failover ----


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_a_master_that_is_away_stops_its_exchanges_alone_and_its_replica_goes_on(
    cluster, exchanges, how
):
    place = TermsInCluster(cluster, timeout=2)
    async with place.node() as node, loads(node, exchanges) as (stopped, *others):
        for each in (stopped, *others):
            await each.goes_on()
        owner = cluster.owner(stopped.exchange)
        owner.kill() if how == "killed" else owner.pause()
        for each in others:
            await each.goes_on()
            assert await node.changes.after(each.exchange, START)
        await stopped.goes_on()
        if how == "frozen":
            owner.resume()
            await trio.to_thread.run_sync(until, lambda: not owner.is_master)
            await stopped.goes_on()
        assert stopped.failures
        assert not [each.failures for each in others if each.failures]
        for exchange in exchanges:
            assert await node.changes.after(exchange, START)
    for each in (stopped, *others):
        each.check(cluster)


# ---- slots that move ----


@pytest.mark.parametrize("move", [move_atomically, move_key_by_key])
async def test_nothing_is_lost_when_a_slot_is_moved_under_load(cluster, place, exchanges, move):
    """And no write fails: it is sent again to the new owner."""
    source, target = cluster.owner(exchanges[0]), cluster.owner(exchanges[1])
    if move is move_atomically and "MIGRATESLOTS" not in str(source.ask("CLUSTER", "HELP")):
        pytest.skip("this server moves slots only key by key")
    slot = slot_of(exchanges[0])
    try:
        async with place.node() as node, loads(node, exchanges[:2]) as (moving, other):
            for begin, end in ((source, target), (target, source)):
                await moving.goes_on()
                await trio.to_thread.run_sync(move, cluster, slot, begin, end)
                await moving.goes_on()
                await other.goes_on()
            assert node.redirects["moved"] >= 2
            await moving.stop()
            assert not moving.failures
            assert not other.failures
            moving.check(cluster)
            await moving.check_bars()
    finally:
        restore(cluster, slot, source)


def restore(cluster, slot, owner):
    """End a move that was cut short by a failure."""
    if slot_owner(owner, slot) != owner.port:
        end_move(cluster, slot, owner)
    for master in cluster.masters():
        master.ask("CLUSTER", "SETSLOT", slot, "STABLE")


async def test_while_a_slot_is_moved_key_by_key_questions_are_answered_and_writes_wait(
    cluster, place, exchanges
):
    """Each key is on one of two servers. A transaction needs all of them in one place."""
    exchange = exchanges[0]
    source, target = cluster.owner(exchange), cluster.owner(exchanges[1])
    slot = slot_of(exchange)
    pairs = [(exchange, symbol) for symbol in ("BTCUSDT", "ETHUSDT", "DOGEUSDT")]
    try:
        async with place.node() as node, node.window(Term(exchange, 1, "t1"), sure) as window:
            await seal(window)
            for number, pair in enumerate(pairs):
                bars = [(pair, (NOON, "t1"), bar(NOON, number + 1.0))]
                await put(window, run_of([NOON] * (number + 1), pair=pair), bars=bars)
            begin_move(slot, source, target)
            moved = [
                f"prices:{{{exchange}}}:BTCUSDT",
                f"bars:{{{exchange}}}:ETHUSDT",
                f"fence:{{{exchange}}}",
            ]
            source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *moved)

            spans = [(pair, Span(NOON, NOON + 1)) for pair in pairs]
            for reading in (node.reading, window):
                assert list(await reading.counts(spans)) == [1, 2, 3]
                found = fields_of(await reading.all_bars(pairs))
                assert [len(found[pair]) for pair in pairs] == [1, 1, 1]
                assert await reading.edges([(exchange, "NONEUSDT")], [Span(NOON, NOON)])
            assert len(await node.changes.after(exchange, START)) == 3
            assert node.redirects["ask"] > 0

            async with trio.open_nursery() as nursery:
                done = trio.Event()

                async def write():
                    assert await put(window, run_of([NOON + 1], pair=pairs[0], first=50))
                    done.set()

                nursery.start_soon(write)
                before = sum(node.redirects.values())
                await eventually(lambda: sum(node.redirects.values()) >= before + 3 or done.is_set())
                assert not done.is_set()
                await trio.to_thread.run_sync(partial(key_by_key_rest, cluster, slot, source, target))
            assert list(await node.reading.counts([(pairs[0], Span(NOON, NOON + 2))])) == [2]
            assert node.redirects["moved"] > 0
    finally:
        restore(cluster, slot, source if slot_owner(source, slot) == source.port else target)
        if slot_owner(source, slot) != source.port:
            move_key_by_key(cluster, slot, target, source)


def key_by_key_rest(cluster, slot, source, target):
    while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 10):
        source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *keys)
    end_move(cluster, slot, target)


async def test_a_slot_that_nobody_has(cluster, place, exchanges):
    """Its exchange is away; others are not."""
    owner, slot = cluster.owner(exchanges[0]), slot_of(exchanges[0])
    owner.ask("CLUSTER", "DELSLOTS", slot)
    try:
        async with place.node() as node:
            load = Load(node, exchanges[1], 1)
            async with trio.open_nursery() as nursery:
                await nursery.start(load.run)
                await load.goes_on()
                async with node.window(Term(exchanges[0], 1, "t1"), sure) as window:
                    with pytest.raises(StoreAway):
                        await window.look()
                    await load.goes_on()
                    assert not load.failures
                    owner.ask("CLUSTER", "ADDSLOTS", slot)
                    await answered(partial(seal, window))
                    await put(window)
                await load.stop()
    finally:
        if slot_owner(owner, slot) is None:
            owner.ask("CLUSTER", "ADDSLOTS", slot)
