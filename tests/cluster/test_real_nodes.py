"""Nodes as processes on real stores: one of each fault. `nox -s cluster` runs many."""

from __future__ import annotations

import pytest
import trio

from tests.cluster.stage import SOON, quiet, stage
from tests.cluster.stores import OneRedis
from tests.cluster.trials import cut, freeze, kill
from tests.faults.rig import eventually
from tests.stream_clients import event_source

pytestmark = pytest.mark.alone


async def test_owner_killed(redis_url, postgres_dsn, tmp_path):
    """Others take its exchanges. Only what was sent meanwhile is missing; every answer and row is right."""
    async with stage(OneRedis(redis_url), postgres_dsn, tmp_path) as it:
        costs = await kill(it, "one")
        await it.check_end()

    assert all(cost.moved and cost.missing for cost in costs)


async def test_owner_frozen(redis_url, postgres_dsn, tmp_path):
    """The same; and when it goes on, nothing that it has in memory or in its sockets gets into a store."""
    # With so long an interval it surely has something in memory.
    async with stage(OneRedis(redis_url), postgres_dsn, tmp_path, PIPELINE__FLUSH_INTERVAL="500ms") as it:
        costs = await freeze(it, "one")
        await it.check_end()

    assert all(cost.moved for cost in costs)


async def test_owner_cut_off(redis_url, postgres_dsn, tmp_path):
    """From Redis: it keeps its leases and loses nothing. From PostgreSQL: another takes its exchanges."""
    async with stage(OneRedis(redis_url), postgres_dsn, tmp_path) as it:
        from_redis = await cut(it, "one", ("redis",), "answers")
        from_postgres = await cut(it, "one", ("postgres",), "requests")
        await it.check_end()

    assert not any(cost.moved or cost.missing for cost in from_redis), from_redis
    assert all(cost.moved for cost in from_postgres), from_postgres


async def test_client_of_a_stream_goes_on_elsewhere(redis_url, postgres_dsn, tmp_path):
    """The node of a client dies. At another one, with the id of the last event, it misses no newest price."""
    newest: dict[tuple[str, str], dict[str, object]] = {}
    ids: list[int] = []

    async def listen(port: int) -> None:
        headers = [("Last-Event-ID", str(ids[-1]))] if ids else []
        async with event_source(port, headers=headers) as source:
            while True:
                event = await source.price()
                pair = event.data["exchange"], event.data["symbol"]
                assert event.data["timestamp"] >= newest.get(pair, event.data)["timestamp"]
                newest[pair] = event.data
                ids.append(event.id)

    async with stage(OneRedis(redis_url), postgres_dsn, tmp_path) as it:
        for dies, lives in (("one", "two"), ("two", "one"), ("one", "three")):
            before = await it.settled()
            async with trio.open_nursery() as listening:
                listening.start_soon(listen, it.nodes[dies].port)
                await eventually(lambda: len(newest) == 6, within=SOON, what="events of all pairs")
                await trio.sleep(0.5)
                listening.cancel_scope.cancel()
            # What comes while the client is nowhere must be told, too.
            await trio.sleep(0.2)
            async with quiet(it.markets), trio.open_nursery() as listening:
                await it.flushed()
                listening.start_soon(listen, it.nodes[lives].port)
                await eventually(lambda: up_to_date(it, newest), within=SOON, what="the newest prices")
                listening.cancel_scope.cancel()
            await it.nodes[dies].end()
            # For a while the leases of the dead node look good.
            await it.settled(after={name: term for name, term in before.items() if term.node == dies})
            await it.start(dies)


def up_to_date(it, newest) -> bool:
    """Whether the newest price of each pair is known."""
    last = {(each.exchange, each.symbol): each for each in sorted(it.sent, key=lambda each: each.timestamp)}
    return {pair: each.timestamp for pair, each in last.items()} == {
        pair: data["timestamp"] for pair, data in newest.items()
    }
