"""PostgreSQL as the store: the lock, the schema, the interval, and what counts as away."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from functools import partial

import psycopg
import pytest
import trio
from psycopg.conninfo import make_conninfo
from slow_machine import within

from marketflow.adapters.db import admission, migrations, statements
from marketflow.adapters.db.connecting import Connector
from marketflow.adapters.db.hosts import Hosts
from marketflow.adapters.db.lock import LOCK
from marketflow.adapters.db.migrations import known_migrations, migrate
from marketflow.adapters.db.parameters import connection_parameters
from marketflow.adapters.db.pins import Pins
from marketflow.adapters.db.postgres import PostgresStore, SchemaTooNew
from marketflow.adapters.db.session import Session
from marketflow.app.ports import Aggregate, IntervalMismatch, RowsRefused, StoreAway, StoreTaken, StoreUnfit
from marketflow.domain.bars import Bar
from marketflow.domain.periods import MINUTE, Span

PAIR = ("exchange1", "BTCUSDT")
EVER = Span(0, 10**15)
ROW = Aggregate(*PAIR, MINUTE, Bar(1, 3.0, 3.0, 3.0, 3.0, 5, 0, 3.0, 5, 0))
BARS = {PAIR: {0: ROW.bar}}


def store(dsn, *, interval=MINUTE, timeout=10.0):
    return PostgresStore(dsn, interval=interval, timeout=timeout)


def session_of(dsn, timeout):
    """A session like those of the store."""
    connector = Connector(connection_parameters(dsn, timeout), Hosts(), Pins(timeout))
    return Session(connector, timeout=timeout)


@contextmanager
def sql(dsn):
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


def backends(dsn):
    """The number of our connections to the database."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'marketflow' AND datname = %s"
    with sql(dsn) as connection:
        return connection.execute(query, [connection.info.dbname]).fetchone()[0]


async def until(condition, seconds=30):
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - the server sends no event
            await trio.sleep(0.01)


async def taken(other):
    """Take the lock once the server has noticed the other's end."""
    with trio.fail_after(30):
        while True:
            try:
                return await other.lease()
            except StoreTaken:
                await trio.sleep(0.01)


# ---- the lock ----


async def test_there_is_one_service_on_a_database(postgres_dsn):
    """The second waits for the first to end, and can read meanwhile."""
    async with store(postgres_dsn) as second:
        async with store(postgres_dsn) as first:
            await first.lease()
            await first.write([ROW])
            for _ in range(2):
                with pytest.raises(StoreTaken):
                    await second.lease()
                with pytest.raises(StoreAway):
                    await second.write([ROW])
            assert await second.bars([PAIR], EVER, MINUTE) == BARS
        await second.lease()
        await second.write([ROW])


async def test_two_that_ask_at_once(postgres_dsn):
    """On a new database one gets the lock, and the other an error."""
    stores = [store(postgres_dsn) for _ in range(4)]
    answers = []

    async def ask(one):
        try:
            answers.append(await one.lease())
        except StoreTaken:
            answers.append(None)

    async with trio.open_nursery() as nursery:
        for one in stores:
            nursery.start_soon(ask, one)
    assert sorted(answers, key=str) == [1, None, None, None]
    for one in stores:
        await one.__aexit__(None, None, None)


async def test_the_lock_goes_with_the_connection(postgres_dsn):
    """The first can then write nothing; when it has the lock again, its number has changed."""
    async with store(postgres_dsn) as first, store(postgres_dsn) as second:
        before = await first.lease()
        with sql(postgres_dsn) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks"
                " WHERE locktype = 'advisory' AND database ="
                " (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
        await taken(second)
        with pytest.raises(StoreAway):
            await first.write([ROW])
        with pytest.raises(StoreTaken):
            await first.lease()
        await second.__aexit__(None, None, None)
        assert await first.lease() != before
        await first.write([ROW])


async def test_our_former_connection_does_not_keep_us_out(postgres_dsn):
    """Its process waits for another lock, and would do so until the end of the statement."""
    async with store(postgres_dsn, timeout=60) as ours:
        before = await ours.lease()
        with sql(postgres_dsn) as other, other.transaction():
            other.execute("LOCK TABLE price_aggregates IN EXCLUSIVE MODE")
            with trio.move_on_after(0.3) as scope:
                await ours.write([ROW])
            assert scope.cancelled_caught
            with within(20):
                assert await ours.lease() != before
        await ours.write([ROW])
        assert await ours.bars([PAIR], EVER, MINUTE) == BARS


async def test_leaving_closes_every_connection(postgres_dsn):
    async with store(postgres_dsn) as ours:
        await ours.lease()
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ours.newest, [PAIR])
        assert 2 <= backends(postgres_dsn) <= 5
    await until(lambda: backends(postgres_dsn) == 0)


async def test_leaving_releases_the_lock_before_it_disconnects(postgres_dsn, monkeypatch):
    """This also holds when cancelled. The server may notice a closed connection only after a while."""
    free, close = [], Session.close

    def look_and_close(session):
        row = successor.execute("SELECT pg_try_advisory_lock(%s)", [LOCK]).fetchone()
        free.append(row == (True,))
        close(session)

    with sql(postgres_dsn) as successor, trio.CancelScope() as scope:
        async with store(postgres_dsn) as first:
            await first.lease()
            monkeypatch.setattr(Session, "close", look_and_close)
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert free
    assert all(free)


# ---- the schema and the interval ----


async def test_the_table_is_the_promised_one(postgres_dsn):
    async with store(postgres_dsn) as ours:
        await ours.lease()
    with sql(postgres_dsn) as connection:
        columns = connection.execute(
            "SELECT column_name, udt_name FROM information_schema.columns"
            " WHERE table_name = 'price_aggregates' ORDER BY ordinal_position"
        ).fetchall()
        key = connection.execute(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE conrelid = 'price_aggregates'::regclass AND contype = 'p'"
        ).fetchall()
    assert columns == [
        ("pair_name", "text"),
        ("exchange", "text"),
        ("timestamp", "timestamptz"),
        ("average_price", "float8"),
        ("min_price", "float8"),
        ("max_price", "float8"),
        ("open_price", "float8"),
        ("close_price", "float8"),
        ("open_time", "timestamptz"),
        ("close_time", "timestamptz"),
        ("update_count", "int8"),
        ("volume", "float8"),
        ("quote_volume", "float8"),
        ("buy_volume", "float8"),
        ("sell_volume", "float8"),
        ("volume_updates", "int8"),
    ]
    assert key == [('PRIMARY KEY (pair_name, exchange, "timestamp")',)]


async def test_the_row_says_when_its_minute_ended(postgres_dsn):
    """The row is checked without our own code for reading."""
    async with store(postgres_dsn) as ours:
        await ours.lease()
        await ours.write([ROW])
    with sql(postgres_dsn) as connection:
        assert connection.execute(
            'SELECT pair_name, exchange, extract(epoch FROM "timestamp"),'
            " extract(epoch FROM open_time)::float8 FROM price_aggregates"
        ).fetchall() == [("BTCUSDT", "exchange1", 60, 0.005)]


def test_migrations_are_numbered_without_gaps():
    numbers = [migration.number for migration in known_migrations()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_many_may_migrate_at_once(postgres_dsn):
    """Each returns with the complete schema, and each migration was applied once."""
    failures, ready = [], threading.Barrier(6)

    def one():
        try:
            with sql(postgres_dsn) as connection:
                ready.wait(10)
                migrate(connection)
                connection.execute("SELECT FROM price_aggregates, marketflow_settings")
        except Exception as error:  # noqa: BLE001 - told in the main thread
            failures.append(error)

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    with sql(postgres_dsn) as connection:
        applied = connection.execute("SELECT number, name FROM marketflow_migrations ORDER BY 1").fetchall()
    needed = [each for each in known_migrations() if each.compatible_from == each.number]
    assert applied == [(migration.number, migration.name) for migration in needed]


def test_only_what_is_missing_is_applied(postgres_dsn, monkeypatch):
    """Rows survive; a migration that fails leaves nothing behind."""
    with sql(postgres_dsn) as connection:
        migrate(connection)
        connection.execute("INSERT INTO marketflow_settings VALUES ('kept', 'yes')")
        newest = known_migrations()[-1].number
        good = migrations.Migration(newest + 1, "more", b"CREATE TABLE more (); CREATE TABLE most ();")
        bad = migrations.Migration(newest + 2, "bad", b"CREATE TABLE worse (); SELECT 1 / 0;")
        known = known_migrations()
        monkeypatch.setattr(migrations, "known_migrations", lambda: [*known, good, bad])
        with pytest.raises(psycopg.errors.DivisionByZero):
            migrate(connection)
        seen = "SELECT to_regclass('more') IS NULL, to_regclass('worse') IS NULL"
        assert connection.execute(seen).fetchone() == (True, True)
        monkeypatch.setattr(migrations, "known_migrations", lambda: [*known, good])
        migrate(connection)
        assert connection.execute(seen).fetchone() == (False, True)
        kept = "SELECT value FROM marketflow_settings WHERE name = 'kept'"
        assert connection.execute(kept).fetchall() == [("yes",)]


async def test_a_newer_schema_is_refused(postgres_dsn):
    """The schema is not changed, and the lock is not kept."""
    async with store(postgres_dsn) as ours:
        await ours.lease()
    with sql(postgres_dsn) as connection:
        connection.execute("INSERT INTO marketflow_migrations VALUES (99, 'later')")
    async with store(postgres_dsn) as ours, store(postgres_dsn) as other:
        with pytest.raises(SchemaTooNew) as caught:
            await ours.lease()
        assert (caught.value.found, caught.value.known) == (99, len(known_migrations()))
        with sql(postgres_dsn) as connection:
            connection.execute("DELETE FROM marketflow_migrations WHERE number = 99")
        await taken(other)


WIDER = b"-- compatible_from: %d\nALTER TABLE price_aggregates ADD COLUMN extra double precision;"


@pytest.mark.parametrize("back", [0, 1], ids=["the release before", "the one before that"])
async def test_a_release_starts_on_a_schema_that_it_can_use(postgres_dsn, monkeypatch, back):
    """A later one has added what it does not know, and says so. One that knows less is refused."""
    known = known_migrations()
    newest = known[-1].number
    later = migrations.Migration(newest + 1, "volume", WIDER % newest)
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "known_migrations", lambda: [*known, later])
        async with store(postgres_dsn) as ours:
            await ours.lease()
            await ours.write([ROW])
    monkeypatch.setattr(migrations, "known_migrations", lambda: known[: newest - back])
    async with store(postgres_dsn) as ours:
        if back:
            with pytest.raises(SchemaTooNew) as caught:
                await ours.lease()
            assert (caught.value.found, caught.value.known) == (newest + 1, newest - back)
            return
        await ours.lease()
        await ours.write([ROW])
        assert await ours.bars([PAIR], EVER, MINUTE) == BARS
    with sql(postgres_dsn) as connection:
        # All that releases before this rule look at.
        needed = max(each.number for each in known if each.compatible_from == each.number)
        assert connection.execute("SELECT max(number) FROM marketflow_migrations").fetchone() == (needed,)


@pytest.mark.parametrize("release", ["later", "before"])
def test_a_role_that_may_not_create_tables_uses_a_compatible_schema(postgres_dsn, monkeypatch, release):
    """It needs no right that it did not need before."""
    known = known_migrations()
    later = [*known, migrations.Migration(known[-1].number + 1, "volume", WIDER % known[-1].number)]
    with sql(postgres_dsn) as connection:
        migrate(connection)
        role = make_role(postgres_dsn)
        try:
            connection.execute(f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {role}")
            monkeypatch.setattr(migrations, "known_migrations", lambda: later)
            migrate(connection)
            ours = later if release == "later" else known
            monkeypatch.setattr(migrations, "known_migrations", lambda: ours)
            with sql(make_conninfo(postgres_dsn, user=role)) as limited:
                migrate(limited)
        finally:
            connection.execute(f"DROP OWNED BY {role}")
            connection.execute(f"DROP ROLE {role}")


@pytest.mark.parametrize(
    "line",
    ["-- compatible_from: 2 ", "-- Compatible_from: 2", "--compatible_from: 2", "-- compatible_from: 9"],
)
def test_a_mistyped_first_line_is_an_error(line):
    """Otherwise a migration would lock out releases that can live with it, or even its own."""
    with pytest.raises(ValueError, match="compatible"):
        _ = migrations.Migration(3, "more", line.encode() + b"\nSELECT 1").compatible_from


def test_the_packaged_migrations_say_what_they_are_compatible_with():
    assert [each.compatible_from for each in known_migrations()] == [1, 2, 2, 2, 2, 2, 2]


def test_a_note_that_cannot_be_read_allows_nothing(postgres_dsn):
    with sql(postgres_dsn) as connection:
        migrate(connection)
        connection.execute("INSERT INTO marketflow_settings VALUES ('compatible migration 9', 'two')")
        with pytest.raises(SchemaTooNew):
            migrate(connection)


async def test_a_compatible_schema_is_brought_up_to_date_once(postgres_dsn, monkeypatch):
    """The next release finds what is applied, of both kinds, and applies the rest."""
    known = known_migrations()
    newest = known[-1].number
    wider = migrations.Migration(newest + 1, "volume", WIDER % newest)
    other = migrations.Migration(newest + 2, "other", b"CREATE TABLE other ();")
    with sql(postgres_dsn) as connection:
        for steps in ([wider], [wider], [wider, other], [wider, other]):
            monkeypatch.setattr(migrations, "known_migrations", lambda steps=steps: [*known, *steps])
            migrate(connection)
        monkeypatch.setattr(migrations, "known_migrations", lambda: [*known, wider])
        with pytest.raises(SchemaTooNew):
            migrate(connection)


async def test_the_database_remembers_the_interval(postgres_dsn):
    """It keeps the first one."""
    async with store(postgres_dsn, interval=MINUTE) as first:
        await first.lease()
    for _ in range(2):
        async with store(postgres_dsn, interval=10_000) as second:
            with pytest.raises(IntervalMismatch) as caught:
                await second.lease()
            assert (caught.value.stored, caught.value.configured) == (MINUTE, 10_000)
    async with store(postgres_dsn, interval=MINUTE) as third:
        await taken(third)


async def test_another_interval(postgres_dsn):
    """With 10 s a row covers the 10 s before its end."""
    async with store(postgres_dsn, interval=10_000) as ours:
        await ours.lease()
        bar = Bar(1, 3.0, 3.0, 3.0, 3.0, 50_005, 0, 3.0, 50_005, 0)
        await ours.write([Aggregate(*PAIR, MINUTE, bar)])
        assert await ours.bars([PAIR], Span(50_000, 60_000), 10_000) == {PAIR: {50_000: bar}}
        assert await ours.bars([PAIR], Span(50_001, 60_000), 10_000) == {}


async def test_an_account_that_may_not_create_tables(postgres_dsn):
    """It is away until another account has made the tables; then it works."""
    role = make_role(postgres_dsn)
    dsn = make_conninfo(postgres_dsn, user=role)
    try:
        async with store(dsn) as ours:
            with pytest.raises(StoreAway, match="permission denied"):
                await ours.lease()
            with sql(postgres_dsn) as connection:
                migrate(connection)
                connection.execute(f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {role}")
            await ours.lease()
            await ours.write([ROW])
            await ours.write([ROW])
            assert await ours.bars([PAIR], EVER, MINUTE) == BARS
        await until(lambda: backends(postgres_dsn) == 0)
    finally:
        with sql(postgres_dsn) as connection:
            connection.execute(f"DROP OWNED BY {role}")
            connection.execute(f"DROP ROLE {role}")


def make_role(dsn):
    with sql(dsn) as connection:
        role = f"limited_{connection.info.dbname}"
        connection.execute(f"CREATE ROLE {role} LOGIN")
        return role


# ---- away, or a bug ----


async def test_a_read_only_database_is_away(postgres_dsn):
    """This is a full disk or a standby. It is also detected while connecting, and ends by itself."""
    async with store(postgres_dsn) as ours:
        await ours.lease()
        await ours.write([ROW])
        with sql(postgres_dsn) as connection:
            name = connection.info.dbname
            connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE application_name = 'marketflow' AND datname = %s",
                [name],
            )
            for _ in range(2):
                with pytest.raises(StoreAway, match="read-only"):
                    await ours.lease()
            assert await ours.bars([PAIR], EVER, MINUTE) == BARS
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        await taken(ours)
        await ours.write([ROW])


async def test_a_database_that_does_not_exist_is_away_until_it_does(postgres_dsn):
    with sql(postgres_dsn) as connection:
        name = f"{connection.info.dbname}_later"
        async with store(make_conninfo(postgres_dsn, dbname=name)) as ours:
            with pytest.raises(StoreAway, match="does not exist"):
                await ours.lease()
            with pytest.raises(StoreAway, match="does not exist"):
                await ours.newest([PAIR])
            connection.execute(f"CREATE DATABASE {name}")
            await ours.lease()
            assert await ours.newest([PAIR]) == {}
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def test_too_many_connections_is_away(postgres_dsn):
    """A single connection is used for rows: a reader that has it gives it up."""
    role = make_role(postgres_dsn)
    with sql(postgres_dsn) as connection:
        connection.execute(f"ALTER ROLE {role} CONNECTION LIMIT 1")
        connection.execute(f"GRANT ALL ON SCHEMA public TO {role}")
    try:
        async with store(make_conninfo(postgres_dsn, user=role)) as one:
            assert await one.newest([PAIR]) == {}
            with pytest.raises(StoreAway, match="too many connections"):
                await one.lease()
            await one.lease()
            with pytest.raises(StoreAway, match="too many connections"):
                await one.newest([PAIR])
            await one.write([ROW])
        await until(lambda: backends(postgres_dsn) == 0)
    finally:
        with sql(postgres_dsn) as connection:
            connection.execute(f"DROP OWNED BY {role}")
            connection.execute(f"DROP ROLE {role}")


async def test_nobody_there_is_away(free_port):
    async with store(f"postgresql://u@127.0.0.1:{free_port}/d") as ours:
        for call in (ours.lease, partial(ours.newest, [PAIR]), partial(ours.bars, [PAIR], EVER, MINUTE)):
            with pytest.raises(StoreAway, match="refused"):
                await call()


@pytest.fixture
def free_port():
    """A port on which nothing listens, kept free by being bound."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


async def test_reasons_tell_no_password(postgres_dsn):
    """This holds even if the server repeats it."""
    async with store(make_conninfo(postgres_dsn, user="hunter2", password="hunter2")) as ours:  # noqa: S106
        with pytest.raises(StoreAway) as caught:
            await ours.lease()
    assert "hunter2" not in str(caught.value)
    assert "***" in str(caught.value)


@pytest.mark.parametrize("dsn", ["hunter2", "postgresql://u:hunter2@h/d?nonsense=1", "host=h hunter2"])
def test_a_wrong_dsn_is_not_repeated(dsn):
    with pytest.raises(ValueError, match="not a PostgreSQL connection string") as caught:
        store(dsn)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("change", "back"),
    [
        ("price_aggregates RENAME close_price TO gone", "price_aggregates RENAME gone TO close_price"),
        ("price_aggregates RENAME TO gone", "gone RENAME TO price_aggregates"),
    ],
)
async def test_a_table_that_somebody_changes_is_away_until_it_is_as_before(postgres_dsn, change, back):
    """It is not mistaken for an empty one, and the lock is kept."""
    async with store(postgres_dsn) as ours:
        before = await ours.lease()
        for _ in range(10):
            await ours.write([ROW])
            assert await ours.bars([PAIR], EVER, MINUTE) == BARS
        with sql(postgres_dsn) as connection:
            connection.execute(f"ALTER TABLE {change}")
            for _ in range(2):
                with pytest.raises(StoreAway, match="does not exist"):
                    await ours.write([ROW])
                with pytest.raises(StoreAway, match="does not exist"):
                    await ours.bars([PAIR], EVER, MINUTE)
                with pytest.raises(StoreAway, match="does not exist"):
                    await ours.newest([PAIR, ("exchange2", "BTCUSDT")])
                assert await ours.lease() == before
            connection.execute(f"ALTER TABLE {back}")
        await ours.write([ROW])
        assert await ours.bars([PAIR], EVER, MINUTE) == BARS
        assert await ours.lease() == before


async def test_a_server_that_is_too_old_is_named(postgres_dsn, monkeypatch):
    monkeypatch.setattr(admission, "OLDEST_SERVER", 99)
    async with store(postgres_dsn) as ours:
        with pytest.raises(StoreUnfit, match=r"PostgreSQL \d\d is too old: it must be 99 or newer"):
            await ours.lease()


async def test_tables_of_somebody_elses_are_away_until_he_takes_them(postgres_dsn):
    """The service starts without them."""
    async with store(postgres_dsn) as ours:
        with sql(postgres_dsn) as connection:
            connection.execute("CREATE TABLE marketflow_migrations (id integer)")
            with pytest.raises(StoreAway, match="does not exist"):
                await ours.lease()
            connection.execute("DROP TABLE marketflow_migrations")
        await ours.lease()
        await ours.write([ROW])


async def test_a_type_that_somebody_changes_is_away(postgres_dsn):
    """PostgreSQL has a special error for this with prepared statements."""
    async with store(postgres_dsn) as ours:
        await ours.lease()
        await ours.write([ROW])
        for _ in range(10):
            assert await ours.bars([PAIR], EVER, MINUTE) == BARS
        with sql(postgres_dsn) as connection:
            connection.execute("ALTER TABLE price_aggregates ALTER min_price TYPE numeric")
            with pytest.raises(StoreAway, match="cached plan"):
                await ours.bars([PAIR], EVER, MINUTE)
            connection.execute("ALTER TABLE price_aggregates ALTER min_price TYPE float8")
        assert await ours.bars([PAIR], EVER, MINUTE) == BARS


async def test_rows_of_a_failed_call_are_not_written(postgres_dsn):
    """One call is one transaction."""
    async with store(postgres_dsn) as ours:
        await ours.lease()
        bad = Aggregate("exchange1", "nul\0", MINUTE, ROW.bar)
        with pytest.raises(RowsRefused):
            await ours.write([ROW, bad])
        assert await ours.bars([PAIR], EVER, MINUTE) == {}


async def test_rows_that_are_refused_cost_no_hold(postgres_dsn):
    """A constraint or trigger refuses them and all rows of the same write; other rows can be written."""
    async with store(postgres_dsn) as ours:
        before = await ours.lease()
        bad = Aggregate("exchange1", "BADUSDT", MINUTE, ROW.bar)
        with sql(postgres_dsn) as connection:
            connection.execute("ALTER TABLE price_aggregates ADD CHECK (pair_name <> 'BADUSDT')")
            connection.execute(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE EXCEPTION 'no % here', new.pair_name; END $$"
            )
            connection.execute(
                "CREATE TRIGGER refuse BEFORE INSERT ON price_aggregates"
                " FOR EACH ROW WHEN (new.pair_name = 'WORSEUSDT') EXECUTE FUNCTION refuse()"
            )
        with pytest.raises(RowsRefused, match="violates check constraint"):
            await ours.write([ROW, bad])
        with pytest.raises(RowsRefused, match="no WORSEUSDT here"):
            await ours.write([Aggregate("exchange1", "WORSEUSDT", MINUTE, ROW.bar), ROW])
        assert await ours.bars([PAIR], EVER, MINUTE) == {}
        await ours.write([ROW])
        assert await ours.bars([PAIR], EVER, MINUTE) == BARS
        assert await ours.lease() == before


async def write_in_vain(ours, scope):
    with pytest.raises(StoreAway):
        await ours.write([ROW])
    scope.cancel()


async def test_what_the_server_does_too_slowly_is_away(postgres_dsn):
    """Reads do not wait for the write; the server ends it, and the lock is kept."""
    async with store(postgres_dsn, timeout=4) as ours:
        before = await ours.lease()
        await ours.write([ROW])
        with sql(postgres_dsn) as other, other.transaction():
            other.execute("LOCK TABLE price_aggregates IN EXCLUSIVE MODE")
            reads = 0
            with within(5):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(write_in_vain, ours, nursery.cancel_scope)
                    while True:
                        assert await ours.bars([PAIR], EVER, MINUTE) == BARS
                        reads += 1
            assert reads > 10
        assert await ours.lease() == before
        await ours.write([ROW])


async def test_a_full_disk_is_away_and_costs_no_hold(postgres_dsn):
    """Otherwise another service could take the lock every second, and everything would be read again."""
    async with store(postgres_dsn) as ours:
        before = await ours.lease()
        with sql(postgres_dsn) as connection:
            connection.execute(
                "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE EXCEPTION 'No space left' USING ERRCODE = 'disk_full'; END $$"
            )
            connection.execute(
                "CREATE TRIGGER full_disk BEFORE INSERT ON price_aggregates EXECUTE FUNCTION full_disk()"
            )
            for _ in range(3):
                with pytest.raises(StoreAway, match="No space left"):
                    await ours.write([ROW])
                assert await ours.lease() == before
            connection.execute("DROP TRIGGER full_disk ON price_aggregates")
        await ours.write([ROW])


# ---- the connection ----


async def test_a_connection_is_used_again(postgres_dsn):
    """This also holds after a failed call, unless a transaction is open."""
    session = session_of(postgres_dsn, 5)

    def pid(connection):
        return connection.info.backend_pid

    def fail(connection):
        raise KeyError("what")

    def fail_within(connection):
        connection.execute("BEGIN")
        raise KeyError("what")

    first = await session.run(pid)
    assert await session.run(pid) == first
    with pytest.raises(StoreAway, match="unexpected KeyError: 'what'"):
        await session.run(fail)
    assert await session.run(pid, connect=False) == first
    with pytest.raises(StoreAway, match="unexpected KeyError: 'what'"):
        await session.run(fail_within)
    with pytest.raises(StoreAway, match="not connected"):
        await session.run(pid, connect=False)
    assert await session.run(pid) != first
    assert session.connections == 2
    session.close()


async def test_a_connection_that_the_server_closed_is_replaced_unnoticed(postgres_dsn):
    async with store(postgres_dsn) as ours:
        await ours.newest([PAIR])
        with sql(postgres_dsn) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE application_name = 'marketflow' AND datname = %s",
                [connection.info.dbname],
            )
        assert await ours.newest([PAIR]) == {}


async def test_cancellation_is_immediate_and_leaves_no_thread(postgres_dsn):
    """The server would otherwise work for another minute."""
    session = session_of(postgres_dsn, 120)
    with within(5), trio.move_on_after(0.3):
        await session.run(lambda connection: connection.execute("SELECT pg_sleep(60)"))
    await until(lambda: session.threads == 0)
    assert await session.run(lambda connection: connection.execute("SELECT 1").fetchone()) == (1,)
    session.close()


@pytest.mark.parametrize("analyzed", [False, True])
@pytest.mark.parametrize(
    ("statement", "exchanges"),
    [
        (statements.DELETE, None),
        (statements.DELETE, ["exchange1"]),
        (statements.DELETE_HELD, ["exchange1"]),
    ],
    ids=["all", "one exchange", "of a term"],
)
async def test_deleting_reads_only_what_it_deletes(postgres_dsn, analyzed, statement, exchanges):
    """It uses an index with any statistics of the planner: joins may take longer than the time limit."""
    async with store(postgres_dsn) as it:
        await it.lease()
    with sql(postgres_dsn) as connection:
        connection.execute(
            "INSERT INTO price_aggregates SELECT 'S' || pair, 'exchange1', 'epoch'::timestamptz"
            " + minute * interval '1 min', 1, 1, 1, 1, 1, now(), now(), 1"
            " FROM generate_series(1, 100) minute, generate_series(1, 300) pair"
        )
        if analyzed:
            connection.execute("ANALYZE price_aggregates")
        for limit in ("1970-01-01 00:00Z", "1970-01-01 00:50Z", "1970-01-02 00:00Z"):
            parameters = {"limit": limit, "rows": 900, "exchanges": exchanges, "others": ["exchange2"]} | {
                "held_exchange": "exchange1",
                "held_epoch": 1,
                "held_term": "t1",
            }
            found = connection.execute(f"EXPLAIN {statement}", parameters).fetchall()
            # Without the part that looks for the lease, in a table of a few rows.
            plan = "\n".join(line for (line,) in found if "marketflow_leases" not in line)
            assert "price_aggregates_timestamp_idx" in plan
            for costly in ("Seq Scan", "Join", "Nested Loop"):
                assert costly not in plan
