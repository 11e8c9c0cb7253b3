"""The contract of every aggregate store: the one in memory and PostgreSQL behave alike."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from fractions import Fraction
from itertools import count

import attrs
import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from marketflow.adapters.db import memory, row_writes
from marketflow.adapters.db.cluster import ClusterDatabase
from marketflow.adapters.db.memory import MemoryStore
from marketflow.adapters.db.postgres import PostgresStore
from marketflow.app.ports import Aggregate, Node, StoreAway, Term
from marketflow.domain.bars import Bar
from marketflow.domain.columns import Traded
from marketflow.domain.periods import HOUR, MINUTE, Span, floor_to
from marketflow.domain.prices import PriceUpdate
from tests.cluster_simulation.servers import ClusterPostgres, SimulatedLeases, TermStore
from tests.simulation.stores import Link, SimulatedPostgres, SimulatedStore

EXCHANGE, SYMBOL = PAIR = ("exchange1", "BTCUSDT")
OTHERS = [("exchange1", "ETHUSDT"), ("exchange2", "BTCUSDT")]
NOON = floor_to(1_795_343_351_549, HOUR)
EVER = Span(-(10**18), 10**18)
TINIEST, GREATEST = 5e-324, 1.7976931348623157e308


PARTITIONED = """
CREATE TABLE price_aggregates (
    pair_name text NOT NULL, exchange text NOT NULL, "timestamp" timestamptz NOT NULL,
    average_price float8 NOT NULL, min_price float8 NOT NULL, max_price float8 NOT NULL,
    open_price float8 NOT NULL, close_price float8 NOT NULL,
    open_time timestamptz NOT NULL, close_time timestamptz NOT NULL, update_count bigint NOT NULL,
    PRIMARY KEY (pair_name, exchange, "timestamp")
) PARTITION BY HASH (pair_name, exchange, "timestamp");
CREATE TABLE part_0 PARTITION OF price_aggregates FOR VALUES WITH (MODULUS 3, REMAINDER 0);
CREATE TABLE part_1 PARTITION OF price_aggregates FOR VALUES WITH (MODULUS 3, REMAINDER 1);
CREATE TABLE part_2 PARTITION OF price_aggregates FOR VALUES WITH (MODULUS 3, REMAINDER 2);
"""


REAL = {"postgres", "partitioned", "terms"}


@pytest.fixture(params=["memory", "simulated", "postgres", "partitioned", "terms", "simulated terms"])
def new_store(request):
    """A store that was never used. Partitioned: another account has made a partitioned table.

    Terms: the stores of the terms of a node in a cluster.
    """
    if request.param == "simulated terms":
        return simulated_terms()
    if request.param == "memory":
        return MemoryStore(MINUTE)
    if request.param == "simulated":
        server = SimulatedPostgres()
        link = Link(server, random.Random(1), timeout=10)
        return SimulatedStore(MINUTE, boot="boot1", link=link, server=server)
    dsn = request.getfixturevalue("postgres_dsn")
    if request.param == "terms":
        return real_terms(dsn)
    if request.param == "partitioned":
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(PARTITIONED)
    return PostgresStore(dsn, interval=MINUTE, timeout=10)


class StoresOfTerms:
    """The stores of several terms as one store, since the contract is about rows of several exchanges.

    The store of a term takes rows of its exchange only.
    """

    def __init__(self, database, leases, store_of):
        self._database, self._leases, self._store_of = database, leases, store_of
        self._stores = {}
        self._held = False

    async def __aenter__(self):
        await self._database.__aenter__()
        return self

    async def __aexit__(self, *error):
        await self._database.__aexit__(*error)

    async def _store(self, exchange):
        if exchange not in self._stores:
            self._stores[exchange] = self._store_of(Term(exchange, 1, "t1"))
            if self._held:
                await self._hold(exchange)
        return self._stores[exchange]

    async def _hold(self, exchange):
        await self._leases.take(Term(exchange, 1, "t1"), Node("a", "b1", "", "all", ""), 60_000, None)
        return await self._stores[exchange].lease()

    async def lease(self):
        await self._store(EXCHANGE)
        self._held = True
        # Of a copy: in later examples of Hypothesis the fixture's call runs at the same time.
        return max([await self._hold(exchange) for exchange in list(self._stores)])

    async def write(self, aggregates):
        parts = {}
        for aggregate in aggregates:
            parts.setdefault(aggregate.exchange, []).append(aggregate)
        for exchange, part in (parts or {EXCHANGE: []}).items():
            await (await self._store(exchange)).write(part)

    async def delete_before(self, end):
        await self._store(EXCHANGE)
        return sum([await store.delete_before(end) for store in self._stores.values()])

    async def bars(self, *question):
        return await self._store_of(Term("nobody", 1, "t1")).bars(*question)

    async def skip(self, *question, **how):
        return await self._store_of(Term("nobody", 1, "t1")).skip(*question, **how)

    async def newest(self, *question):
        return await self._store_of(Term("nobody", 1, "t1")).newest(*question)


def real_terms(dsn):
    database = ClusterDatabase(dsn, interval=MINUTE, timeout=10, lease_timeout=10)
    return StoresOfTerms(database, database.leases, database.store)


def simulated_terms():
    server = ClusterPostgres()
    link = Link(server, random.Random(1), timeout=10)
    leases = SimulatedLeases(link, server, lambda *_: None)

    def store_of(term):
        return TermStore(MINUTE, term, link=link, server=server)

    stores = StoresOfTerms(AsyncExitStack(), leases, store_of)
    stores.rows = server.rows
    return stores


@pytest.fixture
async def store(new_store):
    async with new_store:
        await new_store.lease()
        yield new_store


def bar(start, *, updates=3, average=100.5, low=99.0, high=102.0, opened=100.0, closed=101.0, sequence=0):
    """The bar of updates from the first ms after `start` to the last of the minute."""
    last = start + MINUTE - 1
    return Bar(updates, average, low, high, opened, start + 1, sequence, closed, last, sequence)


def row(minute=0, pair=PAIR, **prices):
    """The aggregate of a minute, counted from noon."""
    start = NOON + minute * MINUTE
    return Aggregate(*pair, start + MINUTE, bar(start, **prices))


def minutes(first, last):
    return Span(NOON + first * MINUTE, NOON + last * MINUTE)


async def rows(store, pair=PAIR):
    found = await store.bars([pair], EVER, MINUTE)
    return list(found.get(pair, {}).items())


async def test_a_new_store_is_empty(new_store, request):
    """Reading needs neither the lock nor tables. Rows without the newest columns cannot be read yet."""
    async with new_store:
        if request.node.callspec.params["new_store"] == "partitioned":
            for question in (new_store.bars([PAIR], EVER, MINUTE), new_store.newest([PAIR])):
                with pytest.raises(StoreAway):
                    await question
            await new_store.lease()
        assert await new_store.bars([PAIR], EVER, MINUTE) == {}
        assert await new_store.newest([PAIR]) == {}


async def test_nothing_is_written_without_the_lock(new_store):
    async with new_store:
        with pytest.raises(StoreAway):
            await new_store.write([row()])
        with pytest.raises(StoreAway):
            await new_store.delete_before(NOON)
        await new_store.lease()
        assert await rows(new_store) == []


async def test_holding_again_is_the_same_hold(store):
    assert await store.lease() == await store.lease()


async def test_a_row_comes_back_as_it_was_written(store):
    """Only the sequences differ, since a later boot could not compare them with its own."""
    prices = {"average": 0.1 + 0.2, "low": 2e-07, "high": 100150.75492142327, "opened": 1 / 3, "closed": 3.9}
    await store.write([row(sequence=7, updates=2**40, **prices)])
    assert await store.bars([PAIR], EVER, MINUTE) == {PAIR: {NOON: bar(NOON, updates=2**40, **prices)}}


@pytest.mark.parametrize(("stored", "written", "kept"), [(5, 4, 1_005), (5, 5, 2_005), (5, 6, 2_006)])
async def test_a_row_is_never_replaced_by_a_smaller_one(store, stored, written, kept):
    """A row with as many updates is the newer one."""
    await store.write([row(updates=stored, high=1_000 + stored)])
    await store.write([row(updates=written, high=2_000 + written)])
    assert [found.max for _, found in await rows(store)] == [kept]


async def test_writing_again_changes_nothing(store):
    aggregates = [row(minute, pair) for minute in range(5) for pair in [PAIR, *OTHERS]]
    await store.write(aggregates)
    once = await store.bars([PAIR, *OTHERS], EVER, MINUTE)
    await store.write(aggregates)
    assert await store.bars([PAIR, *OTHERS], EVER, MINUTE) == once
    assert sum(map(len, once.values())) == 15


async def test_thousands_of_rows_in_one_call(store):
    await store.write([row(minute) for minute in range(2_500)])
    assert len(await rows(store)) == 2_500


async def test_nothing_may_be_written(store):
    await store.write([])
    assert await rows(store) == []


@pytest.mark.parametrize(
    ("start", "end", "starts"),
    [
        (0, 3 * MINUTE, [0, 1, 2]),
        (1, 3 * MINUTE, [1, 2]),
        (0, 3 * MINUTE - 1, [0, 1]),
        (MINUTE, 2 * MINUTE, [1]),
        (MINUTE + 1, 3 * MINUTE - 1, []),
        (2 * MINUTE, MINUTE, []),
    ],
)
@pytest.mark.parametrize("width", [MINUTE, HOUR])
async def test_a_row_counts_if_it_lies_within_the_span(store, start, end, starts, width):
    await store.write([row(minute, updates=10**minute) for minute in range(3)])
    found = await store.bars([PAIR], Span(NOON + start, NOON + end), width)
    total = sum(found_bar.count for found_bar in found.get(PAIR, {}).values())
    assert total == sum(10**minute for minute in starts)


async def test_only_the_pairs_that_were_asked_for(store):
    """Each occurs once, and exchange and symbol belong together."""
    await store.write([row(pair=pair) for pair in [PAIR, *OTHERS, ("exchange2", "ETHUSDT")]])
    found = await store.bars([*OTHERS, *OTHERS, ("exchange3", "BTCUSDT")], EVER, HOUR)
    assert set(found) == set(OTHERS)
    assert {found_bar.count for buckets in found.values() for found_bar in buckets.values()} == {3}
    assert await store.bars([], EVER, MINUTE) == {}


async def test_buckets_are_counted_from_the_epoch(store):
    await store.write([row(minute) for minute in (4, 5, 9, 10)])
    found = await store.bars([PAIR], EVER, 5 * MINUTE)
    assert {start - NOON: part.count for start, part in found[PAIR].items()} == {
        0: 3,
        5 * MINUTE: 6,
        10 * MINUTE: 3,
    }


async def test_a_row_falls_into_the_bucket_that_it_starts_in(store):
    """This matters if buckets end within rows."""
    width = 90_000
    await store.write([row(minute) for minute in range(3)])
    found = await store.bars([PAIR], EVER, width)
    starts = [floor_to(NOON + minute * MINUTE, width) for minute in range(3)]
    assert {start: part.count // 3 for start, part in found[PAIR].items()} == {
        start: starts.count(start) for start in starts
    }
    assert set(await store.bars([PAIR], EVER, 15_000) or ()) == {PAIR}
    assert len((await store.bars([PAIR], EVER, 15_000))[PAIR]) == 3


PRICES = st.floats(min_value=TINIEST, max_value=GREATEST, allow_subnormal=True)


@st.composite
def aggregates(draw):
    made = []
    for minute in draw(st.lists(st.integers(0, 40), max_size=25, unique=True)):
        low, average, high = sorted([draw(PRICES), draw(PRICES), draw(PRICES)])
        ends = st.sampled_from([low, average, high])
        updates = draw(st.integers(1, 10**9))
        one = row(minute, updates=updates, average=average, low=low, high=high, opened=draw(ends))
        made.append(attrs.evolve(one, bar=msgspec.structs.replace(one.bar, close=draw(ends))))
    return made


PAIRS = count()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(written=aggregates(), first=st.integers(0, 20), last=st.integers(20, 41), width=st.integers(1, 50))
async def test_merged_rows_equal_the_whole(store, written, first, last, width):
    """The result is compared with exact fractions, for prices of any size that a float has."""
    pair = (f"exchange{next(PAIRS)}", SYMBOL)
    await store.lease()  # The fixture runs only before the first example, so the lock may not be taken here.
    await store.write([attrs.evolve(aggregate, exchange=pair[0]) for aggregate in written])
    found = await store.bars([pair], minutes(first, last), width * MINUTE)
    expected = {}
    for aggregate in sorted(written, key=lambda aggregate: aggregate.end):
        start = aggregate.end - MINUTE
        if NOON + first * MINUTE <= start and aggregate.end <= NOON + last * MINUTE:
            expected.setdefault(floor_to(start, width * MINUTE), []).append(aggregate.bar)
    assert set(found.get(pair, {})) == set(expected)
    for start, parts in expected.items():
        merged = found[pair][start]
        updates = sum(part.count for part in parts)
        mean = sum(Fraction(part.average) * part.count for part in parts) / updates
        # For the smallest floats half a unit in the last place is a large error.
        assert abs(Fraction(merged.average) - mean) <= mean / 10**12 + len(parts) * Fraction(TINIEST)
        assert msgspec.structs.replace(merged, average=0.0) == Bar(
            updates,
            0.0,
            min(part.min for part in parts),
            max(part.max for part in parts),
            parts[0].open,
            parts[0].open_time,
            0,
            parts[-1].close,
            parts[-1].close_time,
            0,
        )


@pytest.mark.parametrize(
    "prices", [[GREATEST] * 3, [TINIEST] * 3, [TINIEST, GREATEST], [1e308, 1.0, TINIEST]]
)
@pytest.mark.parametrize("updates", [1, 10**9])
async def test_no_price_is_too_large_or_too_small(store, prices, updates):
    extremes = [{"average": p, "low": p, "high": p, "opened": p, "closed": p} for p in prices]
    await store.write([row(minute, updates=updates, **same) for minute, same in enumerate(extremes)])
    assert [found.average for _, found in sorted(await rows(store))] == prices
    (merged,) = (await store.bars([PAIR], EVER, HOUR))[PAIR].values()
    assert merged.average == pytest.approx(float(sum(map(Fraction, prices)) / len(prices)), rel=1e-12)
    assert (merged.min, merged.max) == (min(prices), max(prices))


@pytest.mark.parametrize("end", [-62_135_596_740_000, -1 * MINUTE, 0, 253_402_300_740_000])
@pytest.mark.parametrize("width", [MINUTE, 7 * MINUTE])
async def test_times_are_exact_however_far(store, end, width):
    """From the first minute of the year 1 to the last of 9999."""
    far = Aggregate(*PAIR, end, bar(end - MINUTE))
    await store.write([far])
    for span in (EVER, Span(end - MINUTE, end)):
        found = await store.bars([PAIR], span, width)
        assert found == {PAIR: {floor_to(end - MINUTE, width): far.bar}}
    assert (await store.newest([PAIR]))[PAIR].timestamp == end - 1


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=st.integers(0, 59_998), last=st.integers(0, 59_999))
async def test_times_are_exact_to_the_millisecond(store, first, last):
    pair = (f"exchange{next(PAIRS)}", SYMBOL)
    written = msgspec.structs.replace(
        bar(NOON), open_time=NOON + min(first, last), close_time=NOON + max(first, last)
    )
    await store.lease()  # see above
    await store.write([Aggregate(*pair, NOON + MINUTE, written)])
    assert await store.bars([pair], EVER, MINUTE) == {pair: {NOON: written}}
    assert await store.bars([pair], EVER, HOUR) == {pair: {NOON: written}}


async def test_newest_is_the_close_of_the_last_row(store):
    """There is one for each pair that has rows."""
    await store.write(
        [row(2, closed=99.2), row(7, closed=99.7), row(5, closed=99.5), row(1, OTHERS[0], closed=99.1)]
    )
    assert await store.newest([PAIR, OTHERS[0], OTHERS[0], ("exchange9", SYMBOL)]) == {
        PAIR: PriceUpdate(*PAIR, 99.7, NOON + 8 * MINUTE - 1, 0),
        OTHERS[0]: PriceUpdate(*OTHERS[0], 99.1, NOON + 2 * MINUTE - 1, 0),
    }
    assert await store.newest([]) == {}


async def test_rows_that_end_before_are_deleted(store, monkeypatch):
    """A few minutes at a time, so that no call waits for long; the row that ends exactly then stays."""
    monkeypatch.setattr(row_writes, "DELETED_AT_ONCE", 4)
    monkeypatch.setattr(memory, "DELETED_AT_ONCE", 4)
    await store.write([row(minute, pair) for minute in range(10) for pair in [PAIR, *OTHERS]])
    deleted = [await store.delete_before(NOON + 6 * MINUTE) for _ in range(4)]
    # Of one exchange two rows end at once, of the other one.
    assert deleted == ([8, 5, 2, 0] if isinstance(store, StoresOfTerms) else [6, 6, 3, 0])
    assert [start for start, _ in sorted(await rows(store))] == [NOON + m * MINUTE for m in range(5, 10)]


async def test_rows_are_skipped_from_either_end(store):
    """With several pairs, the first one to reach the number decides."""
    await store.write([row(minute) for minute in range(0, 20, 2)])
    await store.write([row(minute, OTHERS[0]) for minute in range(5, 15)])
    whole = Span(NOON, NOON + 20 * MINUTE)
    assert await store.skip([PAIR], whole, 3) == NOON + 6 * MINUTE
    assert await store.skip([PAIR], whole, 3, backwards=True) == NOON + 13 * MINUTE
    assert await store.skip([PAIR, OTHERS[0]], whole, 5) == NOON + 10 * MINUTE
    assert await store.skip([PAIR, OTHERS[0]], whole, 5, backwards=True) == NOON + 10 * MINUTE
    assert await store.skip([PAIR, OTHERS[0]], whole, 10) is None
    assert await store.skip([PAIR], Span(NOON + 1, NOON + 20 * MINUTE), 0) == NOON + 2 * MINUTE
    assert (
        await store.skip([PAIR], Span(NOON, NOON + 19 * MINUTE - 1), 0, backwards=True) == NOON + 17 * MINUTE
    )


NAN, INFINITE = float("nan"), float("inf")
FOREIGN = [
    {"count": 0},
    {"count": -1},
    {"count": 2**62},
    {"min": 103.0},
    {"max": 98.0},
    {"min": 0.0},
    {"min": -1.0},
    {"average": 98.0},
    {"average": NAN},
    {"open": NAN},
    {"open": 98.0},
    {"close": 103.0},
    {"close": INFINITE},
    {"min": NAN, "max": NAN, "average": NAN, "open": NAN, "close": NAN},
    {"max": INFINITE},
    {"min": -INFINITE},
    {"open_time": NOON + 4 * MINUTE},
    {"open_time": NOON + 2 * MINUTE - 1},
    {"close_time": NOON + 3 * MINUTE},
    {"close_time": NOON + 2 * MINUTE},
]
"""What makes the third row since noon one that no boot can have written."""


async def put_foreign(store, written, request):
    """Put a row into the store, as somebody else would."""
    if request.node.callspec.params["new_store"] not in REAL:
        store.rows[written.exchange, written.symbol, written.end] = written
        return
    values = msgspec.structs.asdict(written.bar) | {
        "exchange": written.exchange,
        "symbol": written.symbol,
        "end": written.end,
    }
    with psycopg.connect(request.getfixturevalue("postgres_dsn"), autocommit=True) as connection:
        connection.execute(
            "INSERT INTO price_aggregates (pair_name, exchange, timestamp, average_price, min_price,"
            " max_price, open_price, close_price, open_time, close_time, update_count)"
            " VALUES (%(symbol)s, %(exchange)s, to_timestamp(%(end)s / 1000.0), %(average)s, %(min)s,"
            " %(max)s, %(open)s, %(close)s, to_timestamp(%(open_time)s / 1000.0),"
            " to_timestamp(%(close_time)s / 1000.0), %(count)s)",
            values,
        )


async def check_foreign_row(store, foreign, request):
    """A foreign row beside rows of ours changes no answer. A row of ours of the same interval replaces it."""
    ours = [row(minute) for minute in (0, 1, 3, 4)]
    await store.write(ours)
    questions = (
        lambda: store.bars([PAIR], EVER, MINUTE),
        lambda: store.bars([PAIR], EVER, HOUR),
        lambda: store.bars([PAIR], minutes(2, 3), HOUR),
        lambda: store.newest([PAIR]),
        lambda: store.skip([PAIR], EVER, 2),
        lambda: store.skip([PAIR], EVER, 2, backwards=True),
        lambda: store.skip([PAIR], EVER, 4),
    )
    before = [await question() for question in questions]
    await put_foreign(store, foreign, request)
    assert [await question() for question in questions] == before
    await store.write([row(2)])
    assert dict(await rows(store)) == {NOON + minute * MINUTE: row(minute).bar for minute in range(5)}
    assert (await store.bars([PAIR], EVER, HOUR))[PAIR][NOON].count == 15


@pytest.mark.parametrize("wrong", FOREIGN, ids=str)
async def test_a_row_that_no_boot_can_have_written_is_ignored(store, wrong, request):
    """It fails no question, and hides no row of ours, not even one that is written later."""
    await check_foreign_row(
        store, attrs.evolve(row(2), bar=msgspec.structs.replace(row(2).bar, **wrong)), request
    )


@pytest.mark.parametrize("late", [1, 500, 30_000, MINUTE - 1])
async def test_a_row_that_ends_within_an_interval_is_ignored(store, late, request):
    """Also if all its updates are before its end."""
    end = NOON + 2 * MINUTE + late
    bar = Bar(9**9, 100.0, 99.0, 101.0, 100.0, end - MINUTE + 5, 0, 100.0, end - 1, 0)
    await check_foreign_row(store, Aggregate(*PAIR, end, bar), request)


async def test_a_newest_row_that_is_foreign_hides_none_of_ours(store, request):
    await store.write([row(1, closed=99.5)])
    await put_foreign(store, row(5, updates=0), request)
    assert (await store.newest([PAIR]))[PAIR].price == 99.5


@pytest.mark.parametrize("kind", ["postgres", "partitioned"])
@pytest.mark.parametrize(
    "change",
    [
        "open_time = '-infinity'",
        "close_time = 'infinity'",
        "open_time = '-infinity', close_time = 'infinity'",
        "open_time = '4713-01-01 BC'",
        "close_time = '294276-12-31'",
        "open_time = NULL",
        "update_count = NULL",
        "average_price = NULL",
        "min_price = NULL, max_price = NULL",
        "timestamp = 'infinity'",
        "timestamp = '-infinity'",
        "timestamp = '294276-12-31', open_time = '294276-12-30 23:59:30', close_time = open_time",
        "timestamp = timestamp + interval '1 microsecond'",
    ],
)
async def test_what_only_postgres_can_hold_is_ignored(postgres_dsn, kind, change):
    """A table that somebody else has made may allow NULL."""
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        if kind == "partitioned":
            connection.execute(PARTITIONED)
        async with PostgresStore(postgres_dsn, interval=MINUTE, timeout=10) as store:
            await store.lease()
            for name in ("open_time", "update_count", "average_price", "min_price", "max_price"):
                connection.execute(f"ALTER TABLE price_aggregates ALTER {name} DROP NOT NULL")
            await store.write([row(0), row(1)])
            query = f"UPDATE price_aggregates SET {change} WHERE timestamp = to_timestamp(%s / 1000)"  # noqa: S608
            connection.execute(query, [NOON + 2 * MINUTE])
            assert await rows(store) == [(NOON, row(0).bar)]
            assert (await store.bars([PAIR], EVER, HOUR)) == {PAIR: {NOON: row(0).bar}}
            assert (await store.newest([PAIR]))[PAIR].timestamp == NOON + MINUTE - 1
            assert await store.skip([PAIR], EVER, 1) is None
            await store.write([row(1)])
            assert [start for start, _ in sorted(await rows(store))] == [NOON, NOON + MINUTE]


async def test_foreign_rows_have_one_line_a_minute(postgres_dsn):
    """Each question finds them again."""
    async with PostgresStore(postgres_dsn, interval=MINUTE, timeout=10) as store:
        await store.lease()
        await store.write([row(minute) for minute in range(5)])
        with psycopg.connect(postgres_dsn, autocommit=True) as connection:
            connection.execute("UPDATE price_aggregates SET update_count = 0")
        with capture_logs() as logs:
            for width in (HOUR, MINUTE, HOUR):
                assert await store.bars([PAIR, OTHERS[0]], EVER, width) == {}
    assert logs == [
        {
            "event": "foreign row ignored",
            "log_level": "warning",
            "exchange": "exchange1",
            "symbol": "BTCUSDT",
            "near": NOON,
            "others_since": 4,
        }
    ]


def traded_bar(start, count, traded):
    return msgspec.structs.replace(bar(start, updates=count), traded=traded)


async def test_rows_tell_what_was_traded(store):
    """Buckets have the sums; rows without any have none."""
    first = Traded(2, 0.0, 150.0, 0.5, 1.0)
    second = Traded(3, 0.25, 25.0)
    rows = [
        attrs.evolve(row(number), bar=traded_bar(row(number).end - MINUTE, 3, traded))
        for number, traded in enumerate([first, second, None])
    ]
    await store.lease()
    await store.write(rows)
    start = rows[0].end - MINUTE
    found = (await store.bars([PAIR], Span(start, start + 3 * MINUTE), MINUTE))[PAIR]
    assert [found[each.end - MINUTE].traded for each in rows] == [first, second, None]
    width = 3 * MINUTE
    if start % width == 0:
        (whole,) = (await store.bars([PAIR], Span(start, start + width), width))[PAIR].values()
        assert whole.traded == Traded(5, 0.25, 175.0, 0.5, 1.0)


@pytest.mark.parametrize("first", [None, Traded(1, 1.0, 100.0), Traded(3, 9.0, 900.0)])
async def test_of_two_rows_of_equal_updates_that_of_more_volumes_stays(store, first):
    second = Traded(2, 2.0, 200.0)
    await store.lease()
    for traded in (first, second):
        await store.write([attrs.evolve(row(), bar=traded_bar(row().end - MINUTE, 3, traded))])
    start = row().end - MINUTE
    found = (await store.bars([PAIR], Span(start, start + MINUTE), MINUTE))[PAIR][start]
    assert found.traded == (first if first is not None and first.updates == 3 else second)
