"""The contract of leases: those in memory, the simulated ones and PostgreSQL's behave alike."""

from __future__ import annotations

import random
import threading
import time
from contextlib import AsyncExitStack

import attrs
import psycopg
import pytest
import trio
from slow_machine import within

from marketflow.adapters.db import statements
from marketflow.adapters.db.cluster import ClusterDatabase
from marketflow.adapters.db.memory_leases import LeaseTable, MemoryLeases
from marketflow.app.ports import FORGOTTEN, Node, StoreAway, Term, WantedMode
from marketflow.domain.periods import MINUTE
from tests.cluster_simulation.servers import ClusterPostgres, SimulatedLeases
from tests.simulation.stores import Link

A = Node("a", "a1", "http://a", "all", "0.2")
B = Node("b", "b1", "http://b", "ingest", "0.3", leaving=True, ready=("exchange1", "é,{}"))
LONG, SHORT = MINUTE, 20
"""How long leases are good, in ms."""


def term(epoch, exchange="exchange1"):
    return Term(exchange, epoch, f"t{epoch}")


class InMemory:
    """A cluster whose leases are a table in this process."""

    def __init__(self):
        self.table = LeaseTable()

    async def node(self):
        """The leases as a node has them."""
        return MemoryLeases(self.table)

    def last_heard(self, name, ago):
        """Have the node be heard of last so long ago (ms)."""
        node, heard = self.table.nodes[name]
        self.table.nodes[name] = node, heard - ago / 1_000

    def step_back(self, by):
        """Have the store's clock be back by so much (ms)."""
        self.table.stepped -= by / 1_000


class Simulated(InMemory):
    def __init__(self):
        self.server = ClusterPostgres()
        self.table = self.server.table

    async def node(self):
        return SimulatedLeases(Link(self.server, random.Random(1), timeout=10), self.server, lambda *_: None)


class Real:
    """A cluster on PostgreSQL."""

    def __init__(self, dsn, stack):
        self.dsn, self.stack = dsn, stack

    async def node(self, timeout=20):
        made = ClusterDatabase(self.dsn, interval=MINUTE, timeout=timeout, lease_timeout=timeout)
        return (await self.stack.enter_async_context(made)).leases

    def sql(self, statement, parameters=()):
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            found = connection.execute(statement, parameters)
            return found.fetchall() if found.description else []

    def last_heard(self, name, ago):
        self.sql(
            "UPDATE marketflow_nodes SET heartbeat = heartbeat - %s * interval '1 ms' WHERE node = %s",
            [ago, name],
        )

    def step_back(self, by):
        # To the rows it is the same whether the clock goes back or they go ahead.
        self.sql("UPDATE marketflow_leases SET expires = expires + %s * interval '1 ms'", [by])
        self.sql("UPDATE marketflow_nodes SET heartbeat = heartbeat + %s * interval '1 ms'", [by])


@pytest.fixture
async def real(postgres_dsn):
    async with AsyncExitStack() as stack:
        yield Real(postgres_dsn, stack)


@pytest.fixture(params=["memory", "simulated", "postgres"])
async def cluster(request):
    async with AsyncExitStack() as stack:
        match request.param:
            case "memory":
                yield InMemory()
            case "simulated":
                yield Simulated()
            case _:
                yield Real(request.getfixturevalue("postgres_dsn"), stack)


@pytest.fixture
async def ours(cluster):
    return await cluster.node()


@pytest.fixture
async def theirs(cluster):
    return await cluster.node()


async def lease(leases, exchange="exchange1"):
    return (await leases.look()).leases.get(exchange)


async def expired(leases, exchange="exchange1"):
    """Wait until the lease is not good any more."""
    with trio.fail_after(30):
        while (await lease(leases, exchange)).left >= 0:  # noqa: ASYNC110 - the store sends no event
            await trio.sleep(0.005)


async def later_than(leases, time):
    """Wait until the store's clock is later than that (Unix ms)."""
    with trio.fail_after(30):
        while (await leases.look()).now <= time:  # noqa: ASYNC110 - the store sends no event
            await trio.sleep(0.005)


async def heard_of_before(leases, name, age):
    """Wait until the node was not heard of for longer than `age` ms."""
    with trio.fail_after(30):
        while (await leases.look()).nodes[name].age <= age:  # noqa: ASYNC110 - the store sends no event
            await trio.sleep(0.005)


# ---- taking ----


async def test_nothing_is_there_at_first(ours):
    sight = await ours.look()
    assert (sight.leases, sight.nodes) == ({}, {})


async def test_what_nobody_has_ever_had_can_be_taken(ours, theirs):
    assert await ours.take(term(1), A, LONG, None)
    seen = await lease(theirs)
    assert (seen.term, seen.node, seen.boot, seen.released) == (term(1), "a", "a1", False)
    assert 0 < seen.left <= LONG


async def test_what_was_renewed_before_the_clock_stepped_back_can_be_taken(cluster, ours, theirs):
    """Whether its owner lives is known by the taker's own clock. A step forward ends leases in any case."""
    assert await ours.take(term(1), A, LONG, None)
    cluster.step_back(10 * LONG)
    assert await theirs.take(term(2), B, LONG, term(1))
    assert not await ours.take(term(3), A, LONG, term(2))


async def test_a_renewal_after_the_clock_stepped_back_keeps_what_was_taken(cluster, ours, theirs):
    assert await ours.take(term(1), A, LONG, None)
    cluster.step_back(10 * LONG)
    await ours.beat(A, [term(1)], LONG)
    assert not await theirs.take(term(2), B, LONG, term(1))


async def test_a_boot_is_admitted_after_another_that_was_heard_of_before_the_clock_stepped_back(
    cluster, ours, theirs
):
    await ours.beat(A, [], LONG)
    cluster.step_back(10 * LONG)
    later = attrs.evolve(A, boot="a2")
    assert (await theirs.beat(later, [], LONG)).nodes["a"].node == later


async def test_what_another_has_cannot_be_taken(ours, theirs):
    assert await ours.take(term(1), A, LONG, None)
    assert not await theirs.take(term(2), B, LONG, term(1))
    assert (await lease(ours)).term == term(1)


async def test_a_lease_tells_since_when_its_node_has_it(ours, theirs):
    """A renewal changes nothing of it, a take does."""
    before = (await ours.look()).now
    assert await ours.take(term(1), A, LONG, None)
    since = (await lease(theirs)).since
    assert before <= since <= (await ours.look()).now
    await later_than(ours, since + 5)
    assert (await ours.beat(A, [term(1)], LONG)).leases["exchange1"].since == since
    await ours.release([term(1)])
    assert await theirs.take(term(2), B, LONG, term(1))
    assert (await lease(ours)).since > since


async def test_an_expired_lease_can_be_taken(ours, theirs):
    assert await ours.take(term(1), A, SHORT, None)
    await expired(ours)
    assert await theirs.take(term(7), B, LONG, term(1))
    seen = await lease(ours)
    assert (seen.term, seen.node, seen.boot) == (term(7), "b", "b1")
    assert seen.left > 0


async def test_a_lease_that_was_given_back_can_be_taken_at_once(ours, theirs):
    assert await ours.take(term(1), A, LONG, None)
    await ours.release([term(1)])
    assert (await lease(theirs)).released
    assert await theirs.take(term(2), B, LONG, term(1))
    seen = await lease(ours)
    assert (seen.term, seen.released) == (term(2), False)


async def test_a_boot_can_take_its_own_lease_again(ours):
    """The answer to its first take was lost. Another boot of the same name cannot."""
    assert await ours.take(term(1), A, LONG, None)
    assert not await ours.take(term(2), attrs.evolve(A, boot="a2"), LONG, term(1))
    assert await ours.take(term(2), A, LONG, term(1))
    assert (await lease(ours)).term == term(2)


@pytest.mark.parametrize(
    "after", [None, term(1), Term("exchange1", 2, "other"), term(3)], ids=["none", "older", "other", "later"]
)
async def test_it_is_taken_only_after_the_term_that_was_seen(ours, after):
    assert await ours.take(term(2), A, LONG, None)
    await ours.release([term(2)])
    assert not await ours.take(term(9), A, LONG, after)
    assert (await lease(ours)).term == term(2)


async def test_what_was_never_taken_has_no_term_before(ours):
    assert not await ours.take(term(2), A, LONG, term(1))
    assert await lease(ours) is None


@pytest.mark.parametrize("epoch", [1, 4, 5])
async def test_the_epoch_must_grow(ours, epoch):
    assert await ours.take(term(5), A, LONG, None)
    await ours.release([term(5)])
    assert not await ours.take(Term("exchange1", epoch, "new"), A, LONG, term(5))
    assert (await lease(ours)).term == term(5)


async def test_exchanges_have_leases_of_their_own(ours, theirs):
    assert await ours.take(term(1), A, LONG, None)
    assert await theirs.take(term(1, "exchange2"), B, LONG, None)
    assert {name: seen.node for name, seen in (await ours.look()).leases.items()} == {
        "exchange1": "a",
        "exchange2": "b",
    }


@pytest.mark.parametrize("first", [True, False])
async def test_of_several_takers_one_wins(cluster, ours, first):
    if not first:
        await ours.take(term(1), A, LONG, None)
        await ours.release([term(1)])
    takers = [await cluster.node() for _ in range(5)]
    won = []

    async def take(leases, place):
        wanted = Term("exchange1", 2, f"of {place}")
        if await leases.take(wanted, attrs.evolve(B, boot=f"b{place}"), LONG, None if first else term(1)):
            won.append(wanted)

    for leases in takers:
        await leases.look()
    async with trio.open_nursery() as nursery:
        for place, leases in enumerate(takers):
            nursery.start_soon(take, leases, place)
    assert won == [(await lease(ours)).term]


# ---- renewing and giving back ----


async def test_a_beat_renews_the_terms_of_the_node(ours):
    for name in ("exchange1", "exchange2", "exchange3"):
        assert await ours.take(term(1, name), A, 10 * SHORT, None)
    sight = await ours.beat(A, [term(1), term(1, "exchange2")], LONG)
    assert {name: seen.left > LONG / 2 for name, seen in sight.leases.items()} == {
        "exchange1": True,
        "exchange2": True,
        "exchange3": False,
    }


async def test_a_lease_that_has_expired_can_be_renewed_until_another_takes_it(ours):
    await ours.take(term(1), A, SHORT, None)
    await expired(ours)
    assert (await ours.beat(A, [term(1)], LONG)).leases["exchange1"].left > 0


async def test_a_term_that_is_over_is_not_renewed(ours, theirs):
    await ours.take(term(1), A, SHORT, None)
    await expired(ours)
    await theirs.take(term(2), B, LONG, term(1))
    seen = (await ours.beat(A, [term(1)], 10 * LONG)).leases["exchange1"]
    assert (seen.term, seen.node) == (term(2), "b")
    assert seen.left <= LONG


async def test_a_term_that_was_given_back_is_not_renewed(ours):
    await ours.take(term(1), A, LONG, None)
    await ours.release([term(1)])
    seen = (await ours.beat(A, [term(1)], 10 * LONG)).leases["exchange1"]
    assert seen.released
    assert seen.left <= LONG


async def test_another_term_of_the_same_epoch_is_not_ours(ours):
    """A database that had forgotten may give an epoch twice."""
    await ours.take(term(1), A, LONG, None)
    other = Term("exchange1", 1, "other")
    await ours.release([other])
    seen = (await ours.beat(A, [other], 10 * LONG)).leases["exchange1"]
    assert (seen.term, seen.released) == (term(1), False)
    assert seen.left <= LONG


async def test_only_the_last_term_is_given_back(ours, theirs):
    await ours.take(term(1), A, LONG, None)
    await ours.release([term(1)])
    await theirs.take(term(2), B, LONG, term(1))
    await ours.release([term(1), term(1, "exchange2")])
    assert not (await lease(theirs)).released


async def test_several_are_given_back_together(ours):
    for name in ("exchange1", "exchange2"):
        await ours.take(term(1, name), A, LONG, None)
    await ours.release([term(1), term(1, "exchange2")])
    assert all(seen.released for seen in (await ours.look()).leases.values())
    await ours.release([])


# ---- nodes ----


async def test_nodes_are_seen_as_they_tell_of_themselves(ours, theirs):
    await ours.beat(A, [], LONG)
    sight = await theirs.beat(B, [], LONG)
    assert {name: seen.node for name, seen in sight.nodes.items()} == {"a": A, "b": B}
    assert all(0 <= seen.age < LONG for seen in sight.nodes.values())
    changed = attrs.evolve(A, url="http://elsewhere", role="api", version="0.4", leaving=True)
    assert (await ours.beat(changed, [], LONG)).nodes["a"].node == changed


async def test_a_node_that_is_not_heard_of_gets_old(ours, theirs):
    await ours.beat(A, [], LONG)
    await heard_of_before(theirs, "a", 50)
    assert (await ours.beat(A, [], LONG)).nodes["a"].age < 50


async def test_a_second_boot_of_a_name_sees_the_first_one(ours, theirs):
    """It is noted only once the first one was not heard of for as long as a lease is good."""
    second = attrs.evolve(A, boot="a2")
    await ours.beat(A, [], LONG)
    assert (await theirs.beat(second, [], LONG)).nodes["a"].node == A
    await heard_of_before(theirs, "a", SHORT)
    assert (await theirs.beat(second, [], SHORT)).nodes["a"].node == second
    assert (await ours.beat(A, [], LONG)).nodes["a"].node == second, "now the first one sees the second"


async def test_a_node_that_has_left_is_forgotten(ours, theirs):
    await ours.beat(A, [], LONG)
    await theirs.beat(B, [], LONG)
    await ours.leave(attrs.evolve(A, boot="a0"))
    assert set((await theirs.look()).nodes) == {"a", "b"}, "it was another boot"
    await ours.leave(A)
    await ours.leave(A)
    assert set((await theirs.look()).nodes) == {"b"}


async def test_a_node_that_was_not_heard_of_for_a_day_is_forgotten(cluster, ours):
    await ours.beat(A, [], LONG)
    await ours.beat(B, [], LONG)
    cluster.last_heard("a", FORGOTTEN - LONG)
    assert set((await ours.beat(B, [], LONG)).nodes) == {"a", "b"}
    cluster.last_heard("a", 2 * LONG)
    await ours.beat(B, [], LONG)
    assert set((await ours.look()).nodes) == {"b"}


# ---- the mode ----


async def test_the_first_node_sets_the_mode_and_later_ones_take_it(ours, theirs):
    assert (await ours.look()).wanted is None
    await ours.found("test")
    await ours.beat(A, [], LONG)
    await theirs.found("live")
    assert (await theirs.beat(B, [], LONG)).wanted == WantedMode("test", 1)


async def test_the_first_node_after_all_have_left_sets_it_again(ours, theirs):
    await ours.found("test")
    await ours.beat(A, [], LONG)
    await ours.leave(A)
    await theirs.found("test")
    assert (await theirs.look()).wanted == WantedMode("test", 1)
    await theirs.found("live")
    assert (await theirs.look()).wanted == WantedMode("live", 2)


async def test_a_switch_is_for_the_generation_that_was_seen(ours, theirs):
    assert not await ours.switch("test", 0), "there is no mode yet"
    await ours.found("live")
    assert await ours.switch("test", 1)
    assert not await theirs.switch("live", 1)
    assert (await theirs.look()).wanted == WantedMode("test", 2)


async def test_of_several_switches_one_is_done(cluster, ours):
    await ours.found("live")
    done = []

    async def switch(leases):
        done.append(await leases.switch("test", 1))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(switch, await cluster.node())
    assert sorted(done) == [False, False, False, True]
    assert (await ours.look()).wanted == WantedMode("test", 2)


async def test_a_take_is_for_the_generation_that_was_seen(ours, theirs):
    """Otherwise one that was sent before a switch could begin a term of the old mode after it."""
    assert not await ours.take(term(1), A, LONG, None, 1), "there is no mode yet"
    await ours.found("live")
    await theirs.switch("test", 1)
    assert not await ours.take(term(1), A, LONG, None, 1)
    assert await ours.take(term(1), A, LONG, None, 2)
    await ours.release([term(1)])
    await theirs.switch("live", 2)
    assert not await ours.take(term(2), A, LONG, term(1), 2)
    assert await ours.take(term(2), A, LONG, term(1), 3)


# ---- PostgreSQL alone ----


async def until_one_waits(cluster):
    """Wait until a call waits for a lock."""
    with trio.fail_after(30):
        while not cluster.sql("SELECT pid FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110
            await trio.sleep(0.01)


async def test_any_text_will_do(real):
    ours = await real.node()
    odd = Node("a'\"\\é\n%s", "{}", "http://[::1]/?a=b&c", "all", "")
    await ours.take(Term('x"\\y', 2**40, "t'1"), odd, LONG, None)
    sight = await ours.beat(odd, [Term('x"\\y', 2**40, "t'1")], LONG)
    assert sight.nodes[odd.name].node == odd
    assert sight.leases['x"\\y'].term == Term('x"\\y', 2**40, "t'1")


async def test_times_are_those_of_the_server(real, monkeypatch):
    ours = await real.node()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    clock = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::float8"
    ((before,),) = real.sql(clock)
    now = (await ours.beat(A, [], LONG)).now
    ((after,),) = real.sql(clock)
    assert before - 1 <= now <= after + 1
    # The lease is moved to the past, and is free without a clock of ours having moved.
    await ours.take(term(1), A, LONG, None)
    real.sql("UPDATE marketflow_leases SET expires = expires - interval '1 hour'")
    assert -60 * MINUTE < (await lease(ours)).left < -58 * MINUTE
    assert await ours.take(term(2), B, LONG, term(1))


@pytest.mark.parametrize("renewed", [False, True])
async def test_a_takeover_waits_for_rows_that_are_being_written_and_a_renewal_does_not(real, renewed):
    """If the lease is renewed meanwhile, it is not taken."""
    ours, theirs, taken = await real.node(), await real.node(), []
    await ours.take(term(1), A, SHORT, None)
    await expired(ours)

    async def take():
        taken.append(await theirs.take(term(2), B, LONG, term(1)))

    with psycopg.connect(real.dsn) as writing:
        writing.execute("SELECT FROM marketflow_leases WHERE epoch = 1 FOR KEY SHARE")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            await until_one_waits(real)
            with within(5):
                if renewed:
                    assert (await ours.beat(A, [term(1)], LONG)).leases["exchange1"].left > 0
                assert (await theirs.beat(B, [], LONG)).leases["exchange1"].term == term(1)
                await ours.release([])
            assert taken == []
            writing.rollback()
    assert taken == [not renewed]
    assert (await lease(ours)).term == (term(1) if renewed else term(2))


async def test_a_beat_tells_who_has_what_was_taken_while_it_waited(real):
    """Otherwise the one that has lost it would take it for renewed."""
    ours, seen = await real.node(), []
    await ours.take(term(1), A, LONG, None)

    async def beat():
        seen.append((await ours.beat(A, [term(1)], LONG)).leases["exchange1"])

    with psycopg.connect(real.dsn) as taking:
        taking.execute("UPDATE marketflow_leases SET epoch = 2, term = 't2', node = 'b'")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(beat)
            await until_one_waits(real)
            taking.commit()
    assert [(each.term, each.node) for each in seen] == [(term(2), "b")]


async def test_a_renewal_is_one_transaction(real):
    """What it does of a part that fails is undone."""
    ours = await real.node()
    await ours.take(term(1), A, LONG, None)
    real.sql("ALTER TABLE marketflow_nodes ADD CHECK (node <> 'a')")
    with pytest.raises(StoreAway, match="violates check constraint"):
        await ours.beat(A, [term(1)], 10 * LONG)
    assert (await lease(ours)).left <= LONG
    real.sql("ALTER TABLE marketflow_nodes DROP CONSTRAINT marketflow_nodes_node_check")
    assert set((await ours.beat(A, [term(1)], 10 * LONG)).nodes) == {"a"}


async def test_a_node_that_stops_between_two_statements_locks_nothing(real, monkeypatch):
    """Otherwise nobody could take its leases as long as its machine keeps the connection."""
    ours, theirs = await real.node(), await real.node()
    await ours.take(term(1), A, SHORT, None)
    between, goes_on = threading.Event(), threading.Event()
    execute = psycopg.Connection.execute

    def stop(connection, query, *args, **kwargs):
        if query == statements.SIGHT:
            between.set()
            assert goes_on.wait(60)
        return execute(connection, query, *args, **kwargs)

    monkeypatch.setattr(psycopg.Connection, "execute", stop)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.beat, A, [term(1)], SHORT)
        assert await trio.to_thread.run_sync(between.wait, 30)
        try:
            with trio.fail_after(60):
                while not await theirs.take(term(2), B, LONG, term(1)):  # noqa: ASYNC110 - until it expires
                    await trio.sleep(0.005)
        finally:
            goes_on.set()


async def test_a_lost_connection_is_made_again(real):
    ours = await real.node()
    await ours.take(term(1), A, LONG, None)
    for _ in range(3):
        real.sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE application_name = 'marketflow' AND datname = current_database()"
        )
        assert (await ours.beat(A, [term(1)], LONG)).leases["exchange1"].term == term(1)


@pytest.mark.parametrize("first", [True, False])
async def test_a_take_that_waits_for_a_switch_is_not_done(real, first):
    ours, taken = await real.node(), []
    await ours.found("live")
    if not first:
        await ours.take(term(1), A, LONG, None)
        await ours.release([term(1)])

    async def take():
        taken.append(await ours.take(term(2), A, LONG, None if first else term(1), 1))

    with psycopg.connect(real.dsn) as switching:
        switching.execute("UPDATE marketflow_cluster SET mode = 'test', generation = 2")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            await until_one_waits(real)
            switching.commit()
    assert taken == [False]


async def test_a_switch_waits_for_a_take(real):
    """Then the next look shows the lease."""
    ours, done = await real.node(), []
    await ours.found("live")

    async def switch():
        done.append(await ours.switch("test", 1))

    with psycopg.connect(real.dsn) as taking:
        taking.execute("SELECT FROM marketflow_cluster FOR SHARE")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(switch)
            await until_one_waits(real)
            assert done == []
            assert (await ours.look()).wanted == WantedMode("live", 1)
            taking.rollback()
    assert done == [True]
