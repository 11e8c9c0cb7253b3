"""PostgreSQL as nodes of a cluster use it: rows under terms, the lock that they share, connections."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import attrs
import psycopg
import pytest
import trio
from psycopg.conninfo import make_conninfo
from slow_machine import answered, within

from marketflow.adapters.db.cluster import ClusterDatabase
from marketflow.adapters.db.postgres import PostgresStore, SchemaTooNew
from marketflow.adapters.state.spool import decode, encode
from marketflow.app.ports import (
    NEVER,
    Aggregate,
    Fenced,
    IntervalMismatch,
    Node,
    StoreAway,
    StoreTaken,
    Term,
)
from marketflow.app.share.spooling import SpooledBar, SpoolFailed
from marketflow.domain.bars import Bar
from marketflow.domain.periods import MINUTE, Span

PAIR = ("exchange1", "BTCUSDT")
EVER = Span(0, 10**15)
ROW = Aggregate(*PAIR, MINUTE, Bar(1, 3.0, 3.0, 3.0, 3.0, 5, 0, 3.0, 5, 0))
BARS = {PAIR: {0: ROW.bar}}
A, B = Node("a", "a1", "http://a", "all", "0"), Node("b", "b1", "http://b", "all", "0")
LONG = MINUTE


def term(epoch, exchange="exchange1"):
    return Term(exchange, epoch, f"t{epoch}")


def node_on(dsn, *, interval=MINUTE, timeout=20.0, generated=()):
    return ClusterDatabase(
        dsn, interval=interval, timeout=timeout, lease_timeout=timeout, generated=generated
    )


def alone_on(dsn, *, timeout=20.0):
    return PostgresStore(dsn, interval=MINUTE, timeout=timeout)


@contextmanager
def sql(dsn):
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


def rows_on(dsn):
    with sql(dsn) as connection:
        return connection.execute("SELECT exchange, pair_name FROM price_aggregates ORDER BY 1, 2").fetchall()


def backends(dsn):
    """The number of our connections to the database."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'marketflow' AND datname = %s"
    with sql(dsn) as connection:
        return connection.execute(query, [connection.info.dbname]).fetchone()[0]


def end_connections(dsn):
    with sql(dsn) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE application_name = 'marketflow' AND datname = current_database()"
        )


async def until(condition, seconds=30):
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - the server sends no event
            await trio.sleep(0.01)


async def until_one_waits(dsn):
    with sql(dsn) as connection:
        await until(lambda: connection.execute("SELECT FROM pg_locks WHERE NOT granted").fetchall())


async def begin(database, begun, node=A):
    """Take the first term of an exchange, and return its store."""
    assert await database.leases.take(begun, node, LONG, None)
    store = database.store(begun)
    await store.lease()
    return store


async def take_over(database, next_one, after, node=B):
    """Take a lease that has expired meanwhile, and return the store of the next term."""
    assert await database.leases.take(next_one, node, LONG, after)
    store = database.store(next_one)
    await store.lease()
    return store


def expire(dsn):
    with sql(dsn) as connection:
        connection.execute("UPDATE marketflow_leases SET expires = expires - interval '1 hour'")


@pytest.fixture
async def ours(postgres_dsn):
    async with node_on(postgres_dsn) as made:
        yield made


@pytest.fixture
async def theirs(postgres_dsn):
    async with node_on(postgres_dsn) as made:
        yield made


# ---- rows are written under the last term only ----


async def refused(store):
    """Check that a term writes and deletes nothing; returns the epoch that it has met."""
    with pytest.raises(Fenced) as wrote:
        await store.write([attrs.evolve(ROW, symbol="FORBIDDEN")])
    with pytest.raises(Fenced) as deleted:
        await store.delete_before(10 * MINUTE)
    with pytest.raises(Fenced) as asked:
        await store.lease()
    assert wrote.value.epoch == deleted.value.epoch == asked.value.epoch
    return asked.value.epoch


async def test_a_term_that_is_over_writes_nothing(ours, theirs, postgres_dsn):
    zombie = await begin(ours, term(1))
    await zombie.write([ROW])
    expire(postgres_dsn)
    successor = await take_over(theirs, term(5), term(1))
    assert await refused(zombie) == 5
    assert rows_on(postgres_dsn) == [PAIR]
    await successor.write([attrs.evolve(ROW, symbol="ETHUSDT")])
    assert rows_on(postgres_dsn) == [PAIR, ("exchange1", "ETHUSDT")]


async def test_a_lease_that_has_expired_is_enough_while_no_other_has_taken_it(ours, postgres_dsn):
    """The database was away for longer than a lease lasts, and nobody could take it."""
    store = await begin(ours, term(1))
    expire(postgres_dsn)
    await store.write([ROW])
    assert await store.lease() == await store.lease()
    assert await store.delete_before(10 * MINUTE) == 1


async def test_a_term_that_was_given_back_writes_nothing(ours):
    store = await begin(ours, term(3))
    await ours.leases.release([term(3)])
    assert await refused(store) == 3


async def test_a_term_that_the_database_has_forgotten_writes_nothing(ours, postgres_dsn):
    store = await begin(ours, term(3))
    with sql(postgres_dsn) as connection:
        connection.execute("DELETE FROM marketflow_leases")
    assert await refused(store) == NEVER


async def test_another_term_of_the_same_epoch_is_another_one(ours, postgres_dsn):
    """A database that has forgotten gives an epoch twice."""
    store = await begin(ours, term(3))
    with sql(postgres_dsn) as connection:
        connection.execute("UPDATE marketflow_leases SET term = 'other'")
    assert await refused(store) == 3


async def test_rows_of_another_exchange_are_a_mistake(ours, postgres_dsn):
    store = await begin(ours, term(1))
    with pytest.raises(ValueError, match="rows of exchange2 under a term of exchange1"):
        await store.write([ROW, attrs.evolve(ROW, exchange="exchange2")])
    assert rows_on(postgres_dsn) == []


async def test_one_term_also_deletes_rows_of_exchanges_that_nobody_has(ours, postgres_dsn):
    """They were removed from the configuration, or belong to the other mode."""
    names = ("exchange1", "exchange2", "exchange3", "given_back", "lost_lately", "lost_long_ago")
    stores = [await begin(ours, term(1, name)) for name in names]
    for store in stores:
        await store.write([attrs.evolve(ROW, exchange=store.term.exchange)])
    await ours.leases.release([term(1, "exchange1"), term(1, "given_back")])
    with sql(postgres_dsn) as connection:
        connection.execute(
            "UPDATE marketflow_leases SET expires = expires - CASE exchange"
            " WHEN 'lost_lately' THEN interval '1 hour' ELSE interval '2 days' END WHERE exchange ~ '^lost'"
        )
        connection.execute(
            "INSERT INTO price_aggregates SELECT * FROM json_populate_record(NULL::price_aggregates, ("
            'SELECT to_jsonb(r) || \'{"exchange": "removed"}\' FROM price_aggregates r LIMIT 1)::json)'
        )
    _, second, third, *_ = stores
    async with node_on(postgres_dsn, generated=["exchange2"]) as node:
        generated = node.store(term(1, "exchange2"))
        await generated.lease()
        assert await generated.delete_before(10 * MINUTE) == 1
    await second.write([attrs.evolve(ROW, exchange="exchange2")])
    assert await third.delete_before(10 * MINUTE) == 1
    assert await second.delete_before(0) == 0
    assert await second.delete_before(10 * MINUTE) == 5
    assert rows_on(postgres_dsn) == [("lost_lately", "BTCUSDT")]


async def test_a_term_deletes_rows_of_its_exchange_only(ours, postgres_dsn):
    stores = [await begin(ours, term(1, name)) for name in ("exchange1", "exchange2")]
    for store in stores:
        await store.write([attrs.evolve(ROW, exchange=store.term.exchange)])
    assert await stores[0].delete_before(10 * MINUTE) == 1
    assert rows_on(postgres_dsn) == [("exchange2", "BTCUSDT")]


SLOW = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN coalesce(new, old); END $$;
CREATE TRIGGER slow BEFORE INSERT OR DELETE ON price_aggregates FOR EACH ROW EXECUTE FUNCTION slow();
"""
"""Rows wait for the test, after the lease was checked."""


@pytest.mark.parametrize("deletes", [False, True])
async def test_what_is_being_written_when_another_takes_over_is_there_before_it(
    ours, theirs, postgres_dsn, deletes
):
    """The successor reads all rows that its predecessor will ever have written."""
    store, taken = await begin(ours, term(1)), []
    if deletes:
        await store.write([ROW])

    async def take():
        await take_over(theirs, term(2), term(1))
        taken.append(rows_on(postgres_dsn))

    with sql(postgres_dsn) as connection:
        connection.execute(SLOW)
        expire(postgres_dsn)
        connection.execute("SELECT pg_advisory_lock(7)")
        async with trio.open_nursery() as nursery:
            if deletes:
                nursery.start_soon(store.delete_before, 10 * MINUTE)
            else:
                nursery.start_soon(store.write, [ROW])
            await until_one_waits(postgres_dsn)
            nursery.start_soon(take)
            # Each of both waits now: the rows for this test, the takeover for the rows.
            query = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            await until(lambda: taken or connection.execute(query).fetchone() == (2,))
            assert taken == []
            connection.execute("SELECT pg_advisory_unlock(7)")
    assert taken == [[] if deletes else [PAIR]]


async def test_what_is_written_while_another_takes_over_is_refused(ours, postgres_dsn):
    """It waits for the takeover, and is not there."""
    store, met = await begin(ours, term(1)), []

    async def write():
        with pytest.raises(Fenced) as caught:
            await store.write([ROW])
        met.append(caught.value.epoch)

    with psycopg.connect(postgres_dsn) as taking:
        taking.execute("UPDATE marketflow_leases SET epoch = 2, term = 't2'")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await until_one_waits(postgres_dsn)
            taking.commit()
    assert met == [2]
    assert rows_on(postgres_dsn) == []


async def test_a_takeover_that_is_undone_refuses_nothing(ours, postgres_dsn):
    store = await begin(ours, term(1))
    with psycopg.connect(postgres_dsn) as taking:
        taking.execute("UPDATE marketflow_leases SET epoch = 2, term = 't2'")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.write, [ROW])
            await until_one_waits(postgres_dsn)
            taking.rollback()
    assert rows_on(postgres_dsn) == [PAIR]


async def test_terms_that_follow_each_other_quickly_leave_no_row_of_an_earlier_one(
    ours, theirs, postgres_dsn
):
    """Each writes until it is refused. What its successor finds at its start is all that it has written."""
    nodes, written, met = [(ours, A), (theirs, B)], [], []

    async def write_until_fenced(store, count):
        try:
            while True:
                symbol = f"T{count}N{len(written)}"
                await store.write([attrs.evolve(ROW, symbol=symbol)])
                written.append(symbol)
        except Fenced as error:
            met.append(error.epoch)

    await ours.leases.take(term(1), A, LONG, None)
    for count in range(1, 16):
        (database, _), (successor, node) = nodes[(count + 1) % 2], nodes[count % 2]
        written.clear()
        store = database.store(term(count))
        await store.lease()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write_until_fenced, store, count)
            await until(lambda: len(written) > 3)
            expire(postgres_dsn)
            assert await successor.leases.take(term(count + 1), node, LONG, term(count))
            found = rows_on(postgres_dsn)
        assert (rows_on(postgres_dsn), met.pop()) == (found, count + 1)
        assert {symbol for _, symbol in found if symbol.startswith(f"T{count}N")} == {*written}


# ---- the connection that writes ----


async def test_the_lease_has_another_number_on_each_new_connection(ours, postgres_dsn):
    """It may lead to another server, with older rows."""
    store = await begin(ours, term(1))
    before = await store.lease()
    end_connections(postgres_dsn)
    with pytest.raises(StoreAway):
        await store.write([ROW])
    after = await store.lease()
    assert after not in {before, 0}
    await store.write([ROW])
    assert await store.lease() == after


async def test_no_term_writes_over_a_connection_before_it_knows_of_it(ours, postgres_dsn):
    """Another term of the same node has made it."""
    first, second = [await begin(ours, term(1, name)) for name in ("exchange1", "exchange2")]
    before = await first.lease()
    end_connections(postgres_dsn)
    await second.lease()
    with pytest.raises(StoreAway, match="not looked at over this connection"):
        await first.write([ROW])
    with pytest.raises(StoreAway, match="not looked at over this connection"):
        await first.delete_before(10 * MINUTE)
    assert await first.lease() != before
    await first.write([ROW])


async def test_questions_need_no_lease(ours, postgres_dsn):
    store = await begin(ours, term(1))
    await store.write([ROW])
    async with node_on(postgres_dsn) as api:
        assert await api.rows.bars([PAIR], EVER, MINUTE) == BARS
        assert await api.store(term(9)).bars([PAIR], EVER, MINUTE) == BARS
        assert (await api.rows.newest([PAIR]))[PAIR].price == 3.0
        assert await api.rows.skip([PAIR], EVER, 0) == 0


async def test_renewals_and_takeovers_wait_for_no_rows_of_the_node(ours, postgres_dsn):
    """Not even for those of the same exchange."""
    store = await begin(ours, term(1))
    with sql(postgres_dsn) as connection:
        connection.execute(SLOW)
        connection.execute("SELECT pg_advisory_lock(7)")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.write, [ROW])
            await until_one_waits(postgres_dsn)
            with within(5):
                assert (await ours.leases.beat(A, [term(1)], LONG)).leases["exchange1"].left > 0
                assert await ours.leases.take(term(1, "exchange2"), A, LONG, None)
            connection.execute("SELECT pg_advisory_unlock(7)")
    assert rows_on(postgres_dsn) == [PAIR]


async def test_a_takeover_that_waits_delays_no_renewal_of_its_node(ours, theirs, postgres_dsn):
    """Rows of another node may be held up for long."""
    store = await begin(theirs, term(1), B)
    with sql(postgres_dsn) as connection:
        connection.execute(SLOW)
        expire(postgres_dsn)
        connection.execute("SELECT pg_advisory_lock(7)")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.write, [ROW])
            await until_one_waits(postgres_dsn)
            nursery.start_soon(ours.leases.take, term(2), A, LONG, term(1))
            query = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            await until(lambda: connection.execute(query).fetchone() == (2,))
            with within(5):
                await ours.leases.beat(A, [], LONG)
                assert (await ours.leases.look()).leases["exchange1"].term == term(1)
            connection.execute("SELECT pg_advisory_unlock(7)")
    assert (await ours.leases.look()).leases["exchange1"].term == term(2)


async def test_after_the_leases_connection_was_lost_no_question_uses_an_older_one(ours, postgres_dsn):
    """A node without a term looks at leases only. After a failover its questions must not meet older rows."""
    reading = (
        "SELECT pid FROM pg_stat_activity"
        " WHERE application_name = 'marketflow' AND datname = current_database()"
        " AND pid NOT IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory')"
    )
    with sql(postgres_dsn) as connection:
        await ours.leases.look()
        await ours.rows.newest([PAIR])
        before = connection.execute(reading).fetchall()
        await ours.leases.look()
        await ours.rows.newest([PAIR])
        assert connection.execute(reading).fetchall() == before
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory'"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        await ours.leases.look()
        await until(lambda: connection.execute(reading).fetchall() == [])
        await ours.rows.newest([PAIR])
        assert len(connection.execute(reading).fetchall()) == 1


async def test_what_another_boot_was_ready_for_does_not_count(ours, postgres_dsn):
    """A release without `ready` goes on under the name of a node that was ready, and leaves it as it was."""
    ready = attrs.evolve(B, ready=("exchange1",))
    sight = await ours.leases.beat(ready, [], LONG)
    assert sight.nodes["b"].node.ready == ("exchange1",)
    with sql(postgres_dsn) as connection:
        connection.execute("UPDATE marketflow_nodes SET boot = 'older', heartbeat = clock_timestamp()")

    sight = await ours.leases.look()

    assert (sight.nodes["b"].node.boot, sight.nodes["b"].node.ready) == ("older", ())


async def test_leases_borrow_a_connection_of_questions(postgres_dsn):
    """Leases must be renewed even if questions have used up all connections."""
    with sql(postgres_dsn) as connection:
        role = f"few_{connection.info.dbname}"
        connection.execute(f"CREATE ROLE {role} LOGIN")
        connection.execute(f"GRANT ALL ON SCHEMA public TO {role}")
        connection.execute(f"ALTER ROLE {role} CONNECTION LIMIT 3")
        try:
            async with node_on(make_conninfo(postgres_dsn, user=role)) as few:
                async with trio.open_nursery() as nursery:
                    for _ in range(10):
                        nursery.start_soon(few.rows.newest, [PAIR])
                with pytest.raises(StoreAway, match="too many connections"):
                    await few.leases.beat(A, [], LONG)
                await few.leases.beat(A, [], LONG)
                async with trio.open_nursery() as nursery:
                    for _ in range(10):
                        nursery.start_soon(few.rows.newest, [PAIR])
        finally:
            end_connections(postgres_dsn)
            connection.execute(f"DROP OWNED BY {role}")
            connection.execute(f"DROP ROLE {role}")


# ---- the lock, the schema, the interval ----


async def test_nodes_and_a_single_service_never_mix(postgres_dsn):
    """Nodes run beside each other. A single service waits until the last has ended, and they wait for it."""
    async with alone_on(postgres_dsn) as alone:
        async with node_on(postgres_dsn) as one, node_on(postgres_dsn) as other:
            store = await begin(one, term(1))
            await other.leases.beat(B, [], LONG)
            with pytest.raises(StoreTaken, match="nodes of a cluster are running on this database"):
                await alone.lease()
            await store.write([ROW])
        # The lock is free at once.
        await alone.lease()
        await alone.write([ROW])
        async with node_on(postgres_dsn) as late:
            for call in (
                late.leases.look,
                lambda: late.leases.beat(A, [], LONG),
                lambda: late.leases.take(term(2), A, LONG, term(1)),
                late.store(term(1)).lease,
            ):
                with pytest.raises(StoreTaken, match="no node of a cluster is running on this database"):
                    await call()
            await alone.write([ROW])
            await alone.__aexit__(None, None, None)
            await late.leases.look()


async def test_each_session_that_writes_keeps_a_single_service_off(postgres_dsn):
    async with node_on(postgres_dsn) as node, alone_on(postgres_dsn) as alone:
        await node.leases.look()
        with pytest.raises(StoreTaken):
            await alone.lease()
    async with node_on(postgres_dsn) as node, alone_on(postgres_dsn) as alone:
        await node.leases.take(term(1), A, LONG, None)
        with pytest.raises(StoreTaken):
            await alone.lease()
    async with node_on(postgres_dsn) as node, alone_on(postgres_dsn) as alone:
        await node.store(term(1)).lease()
        with pytest.raises(StoreTaken):
            await alone.lease()


async def test_a_second_single_service_is_taken_for_no_node(postgres_dsn):
    async with alone_on(postgres_dsn) as first, alone_on(postgres_dsn) as second:
        await first.lease()
        with pytest.raises(StoreTaken) as caught:
            await second.lease()
        assert str(caught.value) == ""


async def test_a_pooler_that_took_the_lock_away_is_noticed(ours, postgres_dsn):
    """Not by renewals: a lease needs no lock."""
    store = await begin(ours, term(1))
    with sql(postgres_dsn) as connection:
        unlock = "SELECT pg_advisory_unlock_all()"
        await ours._database.writing.run(lambda writing: writing.execute(unlock))
        with pytest.raises(StoreAway, match="has taken the lock from our connection"):
            await store.lease()
        assert connection.execute("SELECT 1").fetchone() == (1,)
    await store.lease()
    await store.write([ROW])


async def test_another_interval_and_a_newer_schema_are_refused(ours, postgres_dsn):
    await ours.leases.look()
    async with node_on(postgres_dsn, interval=10_000) as other:
        with pytest.raises(IntervalMismatch):
            await other.leases.look()
        with pytest.raises(IntervalMismatch):
            await other.store(term(1)).lease()
    with sql(postgres_dsn) as connection:
        connection.execute("INSERT INTO marketflow_migrations VALUES (99, 'later')")
    async with node_on(postgres_dsn) as later:
        with pytest.raises(SchemaTooNew):
            await later.leases.look()


# ---- ends and outages ----


async def test_leaving_closes_every_connection_and_ends_every_thread(postgres_dsn):
    before = threading.active_count()
    async with node_on(postgres_dsn) as node:
        store = await begin(node, term(1))
        await node.leases.beat(A, [term(1)], LONG)
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(store.newest, [PAIR])
        assert 4 <= backends(postgres_dsn) <= 7
    assert node.threads == 0
    await until(lambda: backends(postgres_dsn) == 0)
    # Trio keeps idle threads for some seconds.
    await until(lambda: threading.active_count() <= before)


async def test_leaving_while_calls_are_under_way(postgres_dsn):
    """They end, and so do their threads."""
    async with node_on(postgres_dsn) as node:
        store = await begin(node, term(1))
        with sql(postgres_dsn) as other, other.transaction():
            other.execute("LOCK TABLE price_aggregates, marketflow_leases IN EXCLUSIVE MODE")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.write, [ROW])
                nursery.start_soon(node.leases.beat, A, [term(1)], LONG)
                nursery.start_soon(node.leases.take, term(2), B, LONG, term(1))
                await until(lambda: node.threads == 3)
                nursery.cancel_scope.cancel()
            with within(5):
                await node.__aexit__(None, None, None)
            await until(lambda: node.threads == 0)
    await until(lambda: backends(postgres_dsn) == 0)


@pytest.mark.parametrize("connected", [True, False])
async def test_a_server_that_stands_still_is_away_in_time(own_postgres, connected):
    """What was sent to it may take effect later."""
    async with node_on(own_postgres.dsn, timeout=2.0) as node:
        store = node.store(term(1))

        async def prepare():
            await node.leases.take(term(1), A, LONG, None)
            await store.lease()
            await node.leases.beat(A, [term(1)], LONG)

        if connected:
            await answered(prepare)
        own_postgres.pause()
        try:
            calls = [
                node.leases.look,
                lambda: node.leases.beat(A, [term(1)], LONG),
                lambda: node.leases.take(term(2), A, LONG, term(1)),
                lambda: node.leases.release([term(1)]),
                lambda: node.leases.leave(A),
                store.lease,
                lambda: store.write([ROW]),
                lambda: store.delete_before(MINUTE),
                lambda: store.newest([PAIR]),
            ]

            async def fail(call):
                with pytest.raises(StoreAway):
                    await call()

            with within(5):
                async with trio.open_nursery() as nursery:
                    for call in calls:
                        nursery.start_soon(fail, call)
        finally:
            own_postgres.resume()
        await until(lambda: node.threads == 0)
        await answered(node.leases.look)


# ---- the spool of a term ----


def spool_on(database, of):
    return database.spool(of, encode=encode, decode=decode)


def spooled(second, count=1):
    bar = Bar(count, 3.0, 3.0, 3.0, 3.0, second + 5, 0, 3.0, second + 5, 0)
    return SpooledBar(PAIR, second, "t1", bar, whole=False)


async def test_the_next_owner_finds_what_a_term_has_spooled(postgres_dsn):
    """On another node. Once a store has it, it is removed; other exchanges have theirs."""
    async with node_on(postgres_dsn) as a, node_on(postgres_dsn) as b:
        await begin(a, term(1))
        await begin(a, term(1, "exchange2"))
        bars = [spooled(MINUTE), spooled(2 * MINUTE)]
        await spool_on(a, term(1)).save(bars, 20.0)
        await a.leases.release([term(1)])
        await take_over(b, term(2), term(1))
        spool = spool_on(b, term(2))
        assert await spool_on(b, term(1, "exchange2")).load() == []
        assert await spool.load() == bars
        await spool.save([], 20.0)
        assert await spool_on(b, term(2)).load() == []


async def test_a_term_that_is_over_spools_nothing_and_removes_nothing(postgres_dsn):
    """The next one may have read the spool before."""
    async with node_on(postgres_dsn) as a, node_on(postgres_dsn) as b:
        await begin(a, term(1))
        former = spool_on(a, term(1))
        await former.save([spooled(MINUTE)], 20.0)
        expire(postgres_dsn)
        await take_over(b, term(2), term(1))
        for bars in ([spooled(2 * MINUTE)], []):
            with pytest.raises(SpoolFailed):
                await former.save(bars, 20.0)
        assert await spool_on(b, term(2)).load() == [spooled(MINUTE)]


async def test_a_further_save_replaces_what_was_loaded(postgres_dsn):
    """And keeps what was not: a row that cannot be read is left for a later release."""
    async with node_on(postgres_dsn) as a:
        await begin(a, term(1))
        await spool_on(a, term(1)).save([spooled(MINUTE)], 20.0)
        with sql(postgres_dsn) as connection:
            connection.execute(
                "INSERT INTO marketflow_spool (exchange, term, bars)"
                " VALUES ('exchange1', 't0', '{\"form\": 99, \"bars\": []}')"
            )
        spool = spool_on(a, term(1))
        assert await spool.load() == [spooled(MINUTE)]
        await spool.save([spooled(MINUTE, 2)], 20.0)
        await spool.save([spooled(MINUTE, 3)], 20.0)
        assert await spool_on(a, term(1)).load() == [spooled(MINUTE, 3)]
        with sql(postgres_dsn) as connection:
            assert connection.execute("SELECT count(*) FROM marketflow_spool").fetchone() == (2,)
