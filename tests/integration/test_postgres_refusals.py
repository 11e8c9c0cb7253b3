"""Any refusal or error of PostgreSQL means refused rows or a store that is away, and nothing worse."""

from __future__ import annotations

from contextlib import suppress

import attrs
import msgspec
import psycopg
import pytest
from structlog.testing import capture_logs

from marketflow.adapters.db import statements
from marketflow.adapters.db.cluster import ClusterDatabase
from marketflow.adapters.db.postgres import PostgresStore
from marketflow.app.ports import Aggregate, Node, RowsRefused, StoreAway, Term
from marketflow.domain.bars import Bar
from marketflow.domain.periods import MINUTE, Span

PAIR = ("exchange1", "BTCUSDT")
EVER = Span(0, 10**15)
ROW = Aggregate(*PAIR, MINUTE, Bar(1, 3.0, 3.0, 3.0, 3.0, 5, 0, 3.0, 5, 0))
BAD = attrs.evolve(ROW, symbol="BADUSDT")
BARS = {PAIR: {0: ROW.bar}}


@pytest.fixture(params=["alone", "of a term"])
async def store(postgres_dsn, request):
    if request.param == "alone":
        async with PostgresStore(postgres_dsn, interval=MINUTE, timeout=20) as made:
            await made.lease()
            yield made
        return
    term, node = Term("exchange1", 1, "t1"), Node("a", "a1", "", "all", "")
    async with ClusterDatabase(postgres_dsn, interval=MINUTE, timeout=20, lease_timeout=20) as database:
        await database.leases.take(term, node, 10 * MINUTE, None)
        made = database.store(term)
        await made.lease()
        yield made


@pytest.fixture
def sql(postgres_dsn):
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        yield connection.execute


def trigger(sql, body, *, when="new.pair_name = 'BADUSDT'", on="INSERT"):
    sql(f"CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN new; END $$")
    sql(
        f"CREATE TRIGGER odd BEFORE {on} ON price_aggregates"
        f" FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION odd()"
    )


OF_ROWS = ["MF001", "2F005", "42883", "42601", "21000", "22003", "23514", "44000", "P0001", "0A000", "54000"]
OF_ROWS += ["42501", "42P01", "42703", "55000", "XX000", "XX001", "HV000", "ZZZZZ", "01000", "3F000", "25001"]
OF_THE_SERVER = ["53100", "53200", "57014", "58030", "40001", "40P01", "55P03", "25006", "F0000", "08000"]


@pytest.mark.parametrize("state", OF_ROWS)
async def test_an_error_about_a_row_is_a_refusal(store, sql, state):
    """This holds for any SQLSTATE. The lock is kept, and other rows can be written."""
    before = await store.lease()
    trigger(sql, f"RAISE EXCEPTION 'no such thing' USING ERRCODE = '{state}';")
    with pytest.raises(RowsRefused, match="no such thing"):
        await store.write([ROW, BAD])
    await store.write([ROW])
    assert await store.lease() == before
    assert await store.bars([PAIR], EVER, MINUTE) == BARS


@pytest.mark.parametrize("state", OF_THE_SERVER)
async def test_an_error_about_the_server_is_away(store, sql, state):
    """This holds even if one row causes it. The lock is kept."""
    before = await store.lease()
    trigger(sql, f"RAISE EXCEPTION 'not now' USING ERRCODE = '{state}';")
    with pytest.raises(StoreAway, match="not now"):
        await store.write([ROW, BAD])
    assert await store.lease() == before


@pytest.mark.parametrize(
    "body",
    [
        "PERFORM no_such_function();",
        "EXECUTE 'SELEC 1';",
        "new.pair_name := 'BTCUSDT';",  # the same row twice
        "PERFORM * FROM no_such_table;",
        "new.average_price := 'NaN'::numeric::text::integer;",
        "PERFORM 1 / 0;",
        "new.update_count := NULL;",
    ],
)
async def test_a_trigger_that_fails_refuses_its_rows(store, sql, body):
    """The trigger raises errors of its own."""
    trigger(sql, body)
    with pytest.raises(RowsRefused):
        await store.write([ROW, BAD])
    await store.write([ROW])


@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE price_aggregates",
        "ALTER TABLE price_aggregates DROP COLUMN close_price",
        "ALTER TABLE price_aggregates DROP CONSTRAINT price_aggregates_pkey",
        "ALTER TABLE price_aggregates ALTER COLUMN min_price TYPE timestamptz USING now()",
        "ALTER TABLE price_aggregates RENAME TO gone; CREATE VIEW price_aggregates AS SELECT 1 AS pair_name",
    ],
)
async def test_an_error_about_the_table_is_away(store, sql, change):
    """No row is at fault: the error would be the same without rows."""
    before = await store.lease()
    sql(change)
    with pytest.raises(StoreAway):
        await store.write([ROW])
    assert await store.lease() == before


async def test_values_that_cannot_be_written_are_refused(store):
    """They are refused before they get to the server; other rows can be written."""
    count = attrs.evolve(BAD, bar=msgspec.structs.replace(ROW.bar, count=10**30))
    symbol = attrs.evolve(ROW, symbol="\ud800")
    for bad in (count, symbol):
        with pytest.raises(RowsRefused):
            await store.write([ROW, bad])
    await store.write([ROW])


@pytest.mark.parametrize("state", ["MF001", "2F005", "42883", "23503", "P0001", "0A000"])
async def test_a_deletion_may_be_refused(store, sql, state):
    await store.write([ROW])
    trigger(sql, f"RAISE EXCEPTION 'kept' USING ERRCODE = '{state}';", when="true", on="DELETE")
    with pytest.raises(RowsRefused, match="kept"):
        await store.delete_before(10 * MINUTE)
    assert await store.bars([PAIR], EVER, MINUTE) == BARS


@pytest.mark.parametrize("state", ["MF001", "2F005", "42883", "42601", "21000", "22012", "23505", "P0001"])
async def test_an_error_of_a_question_is_away(store, sql, state):
    """The reason is given, and other questions can follow."""
    await store.write([ROW])
    sql("ALTER TABLE price_aggregates RENAME TO kept")
    sql(
        "CREATE FUNCTION odd() RETURNS float8 LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE EXCEPTION 'no such thing' USING ERRCODE = '{state}'; END $$"
    )
    sql("CREATE VIEW price_aggregates AS SELECT * FROM kept WHERE average_price <> odd()")
    questions = [
        lambda: store.bars([PAIR], EVER, MINUTE),
        lambda: store.bars([PAIR], EVER, 60 * MINUTE),
        lambda: store.skip([PAIR], EVER, 0),
        lambda: store.newest([PAIR]),
    ]
    for question in questions:
        with pytest.raises(StoreAway, match=f"no such thing.*SQLSTATE {state}"):
            await question()
    sql("DROP VIEW price_aggregates")
    sql("ALTER TABLE kept RENAME TO price_aggregates")
    assert await store.bars([PAIR], EVER, MINUTE) == BARS


@pytest.mark.parametrize("broken", ["SELEC 1", "SELECT no_such_function()", "SELECT 1", "SELECT %(nothing)s"])
async def test_a_statement_that_is_wrong_is_away(store, monkeypatch, broken):
    """It may be a bug of ours. The log has the traceback at the level debug."""
    monkeypatch.setattr(statements, "ROWS", broken)
    with capture_logs() as logged, pytest.raises(StoreAway):
        await store.bars([PAIR], EVER, MINUTE)
    assert [log["log_level"] for log in logged if "exc_info" in log] == ["debug"]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE price_aggregates SET open_time = 'infinity', close_time = '-infinity'",
        "UPDATE price_aggregates SET update_count = 0",
        "UPDATE marketflow_settings SET value = 'a minute'",
        "UPDATE marketflow_settings SET value = '99999999999999999999'",
        "UPDATE price_aggregates SET pair_name = E'\\u20ac'",
    ],
)
async def test_values_that_cannot_be_read_are_no_crash(postgres_dsn, sql, change):
    """Others may have written to our tables: at worst the store is away."""
    async with PostgresStore(postgres_dsn, interval=MINUTE, timeout=5) as store:
        await store.lease()
        await store.write([ROW, attrs.evolve(ROW, end=2 * MINUTE)])
        sql(change)
        for question in (
            lambda: store.bars([PAIR], EVER, MINUTE),
            lambda: store.bars([PAIR], EVER, 60 * MINUTE),
            lambda: store.skip([PAIR], EVER, 0),
            lambda: store.newest([PAIR]),
        ):
            with suppress(StoreAway):
                await question()
    async with PostgresStore(postgres_dsn, interval=MINUTE, timeout=5) as store:
        with suppress(StoreAway):
            await store.lease()
