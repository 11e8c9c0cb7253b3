"""Connections to PostgreSQL: settings of databases, roles and users, several hosts, few connections."""

from __future__ import annotations

import math
import socket
import threading
from contextlib import contextmanager
from functools import partial

import psycopg
import pytest
import trio
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from slow_machine import answered, within
from structlog.testing import capture_logs

from marketflow.adapters.db import readers
from marketflow.adapters.db.connecting import Connector
from marketflow.adapters.db.hosts import Hosts
from marketflow.adapters.db.parameters import connection_parameters
from marketflow.adapters.db.pins import Pins
from marketflow.adapters.db.postgres import PostgresStore
from marketflow.adapters.db.session import Session
from marketflow.app.ports import Aggregate, StoreAway, StoreTaken, StoreUnfit
from marketflow.domain.bars import Bar
from marketflow.domain.periods import MINUTE, Span

PAIR = ("exchange1", "BTCUSDT")
EVER = Span(-(10**15), 10**15)
PRICE = 0.1 + 0.2
ROW = Aggregate(*PAIR, MINUTE, Bar(1, PRICE, PRICE, PRICE, PRICE, 5, 0, PRICE, 5, 0))
BARS = {PAIR: {0: ROW.bar}}


def store(dsn, timeout=10.0):
    return PostgresStore(dsn, interval=MINUTE, timeout=timeout)


@pytest.fixture
def role(postgres_dsn):
    """The name of a role that may create tables."""
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        name = f"role_{connection.info.dbname}"
        connection.execute(f"CREATE ROLE {name} LOGIN")
        connection.execute(f"GRANT CREATE ON DATABASE {connection.info.dbname} TO {name}")
        connection.execute(f"GRANT ALL ON SCHEMA public TO {name}")
        yield name
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s", [name]
        )
        connection.execute(f"DROP OWNED BY {name}")
        connection.execute(f"DROP ROLE {name}")


async def held(ours, seconds=30):
    """Take the lock once the server has noticed the end of the former connection."""
    with trio.fail_after(seconds):
        while True:
            try:
                return await ours.lease()
            except StoreTaken:
                await trio.sleep(0.02)


async def check(ours):
    """Use all calls of a store."""
    await held(ours)
    await ours.write([ROW])
    await ours.write([ROW])
    assert await ours.bars([PAIR], EVER, MINUTE) == BARS
    assert await ours.bars([PAIR], EVER, 60 * MINUTE) == BARS
    assert await ours.skip([PAIR], EVER, 0) == 0
    assert (await ours.newest([PAIR]))[PAIR].timestamp == 5
    await ours.lease()


SETTINGS = [
    ("DateStyle", "German"),
    ("DateStyle", "SQL, DMY"),
    ("DateStyle", "Postgres, MDY"),
    ("IntervalStyle", "sql_standard"),
    ("IntervalStyle", "iso_8601"),
    ("TimeZone", "Asia/Kathmandu"),
    ("TimeZone", "<+05>-05"),
    ("extra_float_digits", "-15"),
    ("bytea_output", "escape"),
    ("standard_conforming_strings", "off"),
    ("client_encoding", "LATIN1"),
    ("client_encoding", "SJIS"),
    ("search_path", "''"),
    ("search_path", "nowhere"),
    ("search_path", "pg_catalog"),
    ("search_path", "public, pg_catalog"),
    ("search_path", "pg_temp, public"),
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_deferrable", "on"),
    ("exit_on_error", "on"),
    ("idle_session_timeout", "500ms"),
    ("array_nulls", "off"),
    ("lc_numeric", "C"),
    ("lc_messages", "C"),
    ("row_security", "off"),
    ("plan_cache_mode", "force_generic_plan"),
    ("client_min_messages", "debug5"),
    ("jit", "on"),
    ("statement_timeout", "2s"),
    ("quote_all_identifiers", "on"),
    ("track_activities", "on"),
    ("vacuum_cost_delay", "1"),
]


@pytest.mark.parametrize(("name", "value"), SETTINGS)
async def test_any_setting_of_a_role_will_do(postgres_dsn, role, name, value):
    """The settings may be set for the role or for the database."""
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(
            f"ALTER ROLE {role} SET {name} = {value if value == chr(39) * 2 else repr(value)}"
            if name != "search_path"
            else f"ALTER ROLE {role} SET {name} = {value}"
        )
    async with store(make_conninfo(postgres_dsn, user=role)) as ours:
        await check(ours)


async def test_many_settings_of_a_database_will_do(postgres_dsn):
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        for name, value in SETTINGS:
            if name not in {"search_path", "client_min_messages"}:
                connection.execute(f"ALTER DATABASE {connection.info.dbname} SET {name} = '{value}'")
    async with store(postgres_dsn) as ours:
        await check(ours)
        await trio.sleep(0.7)
        await ours.lease()


async def test_nobodys_function_takes_the_place_of_postgresqls(postgres_dsn, role):
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION public.pg_try_advisory_lock(bigint) RETURNS boolean"
            " LANGUAGE sql AS 'SELECT false'"
        )
        connection.execute(f"ALTER ROLE {role} SET search_path = public, pg_catalog")
    async with store(make_conninfo(postgres_dsn, user=role)) as ours:
        await check(ours)


async def test_tables_are_in_the_users_own_schema(postgres_dsn, role):
    """His search path begins there."""
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {role} AUTHORIZATION {role}")
        async with store(make_conninfo(postgres_dsn, user=role)) as ours:
            await check(ours)
        found = connection.execute("SELECT schemaname FROM pg_tables WHERE tablename = 'price_aggregates'")
        assert found.fetchall() == [(role,)]


def session_of(dsn, timeout, pins=None):
    return Session(
        Connector(connection_parameters(dsn, timeout), Hosts(), pins or Pins(timeout)), timeout=timeout
    )


async def shown(dsn, *names, timeout=2.0, pins=None):
    """The settings in one of our sessions."""
    session = session_of(dsn, timeout, pins)

    def show(connection):
        return [connection.execute("SELECT current_setting(%s)", [name]).fetchone()[0] for name in names]

    try:
        return await session.run(show)
    finally:
        session.close()


async def test_the_users_own_limits_hold_where_they_are_shorter(postgres_dsn):
    dsn = make_conninfo(postgres_dsn, options="-c statement_timeout=700 -c lock_timeout=300 -c jit=on")
    assert await shown(dsn, "statement_timeout", "lock_timeout", "jit") == ["700ms", "300ms", "on"]


async def test_longer_limits_would_undo_ours_and_that_is_told_once(postgres_dsn, monkeypatch):
    """This includes limits from the environment; no limit counts as a longer one."""
    monkeypatch.setenv("PGOPTIONS", "-c statement_timeout=60s -c idle_in_transaction_session_timeout=0")
    pins = Pins(2.0)
    with capture_logs() as logged:
        for _ in range(3):
            found = await shown(
                postgres_dsn, "statement_timeout", "idle_in_transaction_session_timeout", pins=pins
            )
            assert found == ["1800ms", "2s"]
    told = [log for log in logged if log["event"] == "settings of PostgreSQL overridden"]
    assert [log["statement_timeout"] for log in told] == ["1800ms instead of 1min"]


async def test_the_environment_is_as_good_as_parameters(postgres_dsn, monkeypatch, tmp_path):
    """So is a service file. The connection string takes precedence."""
    parts = conninfo_to_dict(postgres_dsn)
    monkeypatch.setenv("PGHOST", parts["host"])
    monkeypatch.setenv("PGPORT", parts["port"])
    monkeypatch.setenv("PGAPPNAME", "mine")
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    monkeypatch.setenv("PGDATESTYLE", "German")
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    (tmp_path / "services").write_text(
        f"[here]\nhost={parts['host']}\nport={parts['port']}\nuser={parts['user']}\n"
        f"dbname={parts['dbname']}\noptions=-c statement_timeout=500\n"
    )
    dsn = make_conninfo(user=parts["user"], dbname=parts["dbname"])
    names = ["application_name", "TimeZone", "DateStyle", "client_encoding"]
    assert await shown(dsn, *names) == ["mine", "UTC", "ISO, MDY", "UTF8"]
    monkeypatch.setenv("PGHOST", "127.0.0.9")
    monkeypatch.setenv("PGPORT", "1")
    assert await shown("service=here", "statement_timeout") == ["500ms"]
    monkeypatch.setenv("PGSERVICE", "here")
    assert await shown("application_name=own", "application_name", "statement_timeout") == ["own", "500ms"]
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "standby")
    with pytest.raises(StoreUnfit, match="target_session_attrs is standby"):
        await shown("service=here", "TimeZone")


async def test_a_service_that_is_not_there_is_away_until_it_is(postgres_dsn, monkeypatch, tmp_path):
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    parts = conninfo_to_dict(postgres_dsn)
    async with store("service=later") as ours:
        with pytest.raises(StoreAway, match="service"):
            await ours.lease()
        lines = [f"{name}={parts[name]}" for name in ("host", "port", "user", "dbname")]
        (tmp_path / "services").write_text("\n".join(["[later]", *lines, ""]))
        await check(ours)


# ---- several hosts ----


@contextmanager
def silent():
    """The port of a host that accepts connections and never sends anything."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(100)
        yield str(listener.getsockname()[1])


def at(dsn, *ports, **more):
    own = conninfo_to_dict(dsn)["port"]
    ports = [own if port is None else port for port in ports]
    return make_conninfo(dsn, host=",".join(["127.0.0.1"] * len(ports)), port=",".join(ports), **more)


async def at_the_first_try(dsn, timeout, body):
    """Run it with a new store, without a failure; with another store if the machine was too slow."""
    for left in (2, 1, 0):
        async with store(dsn, timeout=timeout) as ours:
            try:
                await body(ours)
            except* StoreAway:
                if left == 0:
                    raise
            else:
                return


@pytest.mark.parametrize("timeout", [2.0, 5.0])
@pytest.mark.parametrize(
    "attributes", [{}, {"target_session_attrs": "read-write"}, {"load_balance_hosts": "random"}]
)
async def test_a_silent_host_leaves_time_for_the_next(postgres_dsn, timeout, attributes):
    """From then on it is tried last, so that further connections do not wait for it."""
    tried_last = "load_balance_hosts" not in attributes

    async def ask(ours):
        await check(ours)
        with within(timeout / 2 if tried_last else math.inf):
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(ours.newest, [PAIR])

    with silent() as port, silent() as another:
        await at_the_first_try(at(postgres_dsn, port, another, None, **attributes), timeout, ask)


async def test_a_silent_address_of_a_name_leaves_time_for_the_next(postgres_dsn, monkeypatch):
    own = conninfo_to_dict(postgres_dsn)["port"]
    answer = [(2, 1, 6, "", (address, 0)) for address in ("127.0.0.9", "127.0.0.8", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
    with socket.socket() as first, socket.socket() as second:
        for listener, host in ((first, "127.0.0.9"), (second, "127.0.0.8")):
            listener.bind((host, int(own)))
            listener.listen(100)
        await at_the_first_try(make_conninfo(postgres_dsn, host="db.example"), 2.0, check)


async def test_the_user_s_connect_timeout_holds_where_it_is_shorter(postgres_dsn):
    with silent() as port:
        async with store(at(postgres_dsn, port, connect_timeout=1), timeout=20) as ours:
            with within(4), pytest.raises(StoreAway, match="no answer within 1 s"):
                await ours.lease()


# ---- names ----


@contextmanager
def hung_resolver(monkeypatch):
    """A resolver that does not answer until the end; counts the lookups."""
    asked, go_on = [], threading.Event()
    real = socket.getaddrinfo

    def hang(name, *args, **kwargs):
        if name != "db.example":
            return real(name, *args, **kwargs)
        asked.append(threading.current_thread())
        go_on.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        yield asked
    finally:
        go_on.set()
        monkeypatch.setattr(socket, "getaddrinfo", real)


async def test_a_hung_resolver_is_away_in_time_and_holds_one_thread(postgres_dsn, monkeypatch):
    """Many calls use one thread, and cancelled ones leave none. When it answers, calls work."""
    dsn = make_conninfo(postgres_dsn, host="db.example")
    async with store(dsn, timeout=0.6) as ours:
        with hung_resolver(monkeypatch) as asked:
            for _ in range(8):
                with within(1.5), pytest.raises(StoreAway):
                    await ours.lease()
            for _ in range(8):
                with trio.move_on_after(0.05):
                    await ours.lease()
            assert len(asked) == 1
            await until(lambda: ours.threads == 0)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("127.0.0.1", 0))])
        asked[0].join(20)
        await answered(partial(check, ours))


async def test_known_addresses_outlast_the_resolver(postgres_dsn, monkeypatch):
    dsn = make_conninfo(postgres_dsn, host="db.example")
    async with store(dsn, timeout=6) as ours:
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("127.0.0.1", 0))])
        await check(ours)
        with hung_resolver(monkeypatch), psycopg.connect(postgres_dsn, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE application_name = 'marketflow' AND datname = current_database()"
            )
            await check(ours)


# ---- as many connections as there are ----


@pytest.mark.parametrize("limit", [2, 3, 4])
@pytest.mark.parametrize("kind", ["role", "database"])
async def test_questions_wait_for_the_connections_there_are(postgres_dsn, role, limit, kind):
    """None of many concurrent questions fails."""
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        name = role if kind == "role" else connection.info.dbname
        # For a database, this connection and the fixture's count as well.
        number = limit if kind == "role" else limit + 2
        connection.execute(f"ALTER {kind} {name} CONNECTION LIMIT {number}")
        async with store(make_conninfo(postgres_dsn, user=role)) as ours:
            await check(ours)
            for _ in range(3):
                async with trio.open_nursery() as nursery:
                    for _ in range(30):
                        nursery.start_soon(ours.newest, [PAIR])
            await ours.lease()


async def test_the_writing_connection_takes_over_a_readers(postgres_dsn, role):
    """Rows must be written even if questions have used up all connections."""
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(f"ALTER ROLE {role} CONNECTION LIMIT 2")
    async with store(make_conninfo(postgres_dsn, user=role)) as ours:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ours.newest, [PAIR])
        with pytest.raises(StoreAway, match="too many connections"):
            await ours.lease()
        await check(ours)
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ours.newest, [PAIR])


async def test_the_number_of_connections_grows_again(postgres_dsn, role, monkeypatch):
    monkeypatch.setattr(readers, "FEWER_SECONDS", 0.2)
    query = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s"
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(f"ALTER ROLE {role} CONNECTION LIMIT 2")
        async with store(make_conninfo(postgres_dsn, user=role)) as ours:
            await check(ours)
            connection.execute(f"ALTER ROLE {role} CONNECTION LIMIT -1")
            with trio.fail_after(30):
                while connection.execute(query, [role]).fetchone() < (5,):
                    async with trio.open_nursery() as nursery:
                        for _ in range(20):
                            nursery.start_soon(ours.newest, [PAIR])


# ---- another server may have taken over ----


PIDS = (
    "SELECT pid FROM pg_stat_activity WHERE application_name = 'marketflow' AND datname = current_database()"
    " AND pid {} (SELECT pid FROM pg_locks WHERE locktype = 'advisory')"
)


def pids(connection, *, writing):
    """The server processes of our connections: the writing one, or the reading ones."""
    rows = connection.execute(PIDS.format("IN" if writing else "NOT IN")).fetchall()
    return {pid for (pid,) in rows}


async def until(condition, seconds=30):
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - no event says so
            await trio.sleep(0.02)


def end_writer(connection):
    for pid in pids(connection, writing=True):
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


async def test_after_the_writers_connection_was_lost_no_question_uses_an_older_one(postgres_dsn):
    """A failover may end only one connection, and leave others on the former server with older rows."""
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        async with store(postgres_dsn) as ours:
            await check(ours)
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(ours.newest, [PAIR])
            before = pids(connection, writing=False)
            await ours.lease()
            await ours.newest([PAIR])
            assert pids(connection, writing=False) == before, "they stay while the writer's does"
            end_writer(connection)
            await held(ours)
            await check(ours)
            await until(lambda: not before & pids(connection, writing=False))
            assert pids(connection, writing=False)


async def test_a_question_that_is_being_answered_then_is_the_last_on_its_connection(postgres_dsn):
    with psycopg.connect(postgres_dsn) as blocking, psycopg.connect(postgres_dsn, autocommit=True) as other:
        async with store(postgres_dsn) as ours:
            await check(ours)
            before = pids(other, writing=False)
            async with trio.open_nursery() as nursery:
                blocking.execute("LOCK TABLE price_aggregates")
                nursery.start_soon(ours.newest, [PAIR])
                await until(lambda: other.execute("SELECT FROM pg_locks WHERE NOT granted").fetchall())
                end_writer(other)
                await held(ours)
                assert before <= pids(other, writing=False), "it is not cut off"
                blocking.rollback()
            await ours.newest([PAIR])
            await until(lambda: not before & pids(other, writing=False))
