"""PostgreSQL frozen, killed or stopped: every call ends in time, and nothing is written twice or lost."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import psycopg
import pytest
import trio
from slow_machine import answered, pulse, within

from marketflow.adapters.db.postgres import PostgresStore
from marketflow.app.ports import Aggregate, StoreAway
from marketflow.domain.bars import Bar
from marketflow.domain.periods import MINUTE, Span

PAIR = ("exchange1", "BTCUSDT")
EVER = Span(0, 10**15)
TIMEOUT = 0.7
"""The store's time limit in tests that wait for it, in seconds."""
SLACK = 1.0
"""What a call may need besides, in seconds of the slow clock."""
LONG = 30.0
"""The store's time limit in tests that must not wait for it, in seconds."""
AT_ONCE = 10.0
"""Much less than LONG, and longer than a stall of the machine."""


def rows(count):
    return [
        Aggregate(*PAIR, end, Bar(1, 3.0, 3.0, 3.0, 3.0, end - 5, 0, 3.0, end - 5, 0))
        for end in range(MINUTE, (count + 1) * MINUTE, MINUTE)
    ]


def calls(store):
    return {
        "hold": store.lease,
        "write": partial(store.write, rows(3)),
        "delete_before": partial(store.delete_before, 0),
        "bars": partial(store.bars, [PAIR], EVER, MINUTE),
        "newest": partial(store.newest, [PAIR]),
    }


async def held(store):
    """The lease's number, once the server is back."""
    return await answered(store.lease)


async def until(condition, seconds=20):
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - no event tells
            await trio.sleep(0.01)


@asynccontextmanager
async def open_store(server, timeout):
    """A store with the lock, three rows, and a reading connection."""
    async with PostgresStore(server.dsn, interval=MINUTE, timeout=timeout) as store:
        await answered(partial(write_and_read, store, 3))
        yield store
        # After any test the server must answer or be gone, so that leaving ends in time.
        server.resume()


@pytest.fixture
async def store(own_postgres):
    async with open_store(own_postgres, TIMEOUT) as store:
        yield store


@pytest.fixture
async def patient_store(own_postgres):
    async with open_store(own_postgres, LONG) as store:
        yield store


async def write_and_read(store, count):
    """Take the lock, write that many rows, and read them."""
    await store.lease()
    await store.write(rows(count))
    assert len((await store.bars([PAIR], EVER, MINUTE))[PAIR]) == count


async def away(call):
    """The call reports that the store is away."""
    with pytest.raises(StoreAway):
        await call()


@pytest.mark.parametrize("name", ["hold", "write", "delete_before", "bars", "newest"])
async def test_a_frozen_server_is_away_within_the_time_limit(store, own_postgres, name):
    """This holds on an existing and on a new connection, and the event loop is not blocked."""
    own_postgres.pause()
    async with pulse() as event_loop:
        for _ in range(3):
            with within(TIMEOUT + SLACK):
                await away(calls(store)[name])
    assert event_loop.longest < TIMEOUT / 2
    own_postgres.resume()
    await held(store)
    await answered(calls(store)[name])


async def test_after_a_freeze_it_is_another_hold(store, own_postgres):
    """Our former connection, which is unfrozen with its server, does not keep us out."""
    before = await held(store)
    own_postgres.pause()
    await away(store.lease)
    own_postgres.resume()
    assert await held(store) > before
    await answered(partial(write_and_read, store, 4))


async def test_many_questions_to_a_frozen_server(store, own_postgres):
    """With more questions than connections each gets its error in time, and the threads end."""
    own_postgres.pause()
    with within(TIMEOUT + SLACK):
        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(away, calls(store)["newest"])
    await until(lambda: store.threads == 0)
    own_postgres.resume()
    assert set(await answered(calls(store)["newest"])) == {PAIR}


@pytest.mark.parametrize("name", ["hold", "write", "bars"])
@pytest.mark.parametrize("connected", [True, False])
async def test_cancelling_does_not_wait_for_a_frozen_server(own_postgres, name, connected):
    """This holds during a statement and while connecting, and no thread is left."""
    async with PostgresStore(own_postgres.dsn, interval=MINUTE, timeout=LONG) as store:
        if connected or name == "write":
            await store.lease()
            await store.newest([PAIR])
        own_postgres.pause()
        with within(AT_ONCE), trio.move_on_after(0.2) as scope:
            await calls(store)[name]()
        assert scope.cancelled_caught
        await until(lambda: store.threads == 0)
        own_postgres.resume()
        await held(store)


async def test_leaving_does_not_wait_for_a_frozen_server(own_postgres):
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(
            PostgresStore(own_postgres.dsn, interval=MINUTE, timeout=LONG)
        )
        await store.lease()
        await store.newest([PAIR])
        own_postgres.pause()
        with within(AT_ONCE):
            await stack.aclose()
    own_postgres.resume()
    async with PostgresStore(own_postgres.dsn, interval=MINUTE, timeout=LONG) as successor:
        await held(successor)


@pytest.mark.parametrize("ending", ["kill", "stop"])
async def test_a_server_that_went_and_came_back(patient_store, own_postgres, ending):
    """It is away at once; afterwards the lock is taken again, on the same rows."""
    store = patient_store
    before = await store.lease()
    getattr(own_postgres, ending)()
    with within(AT_ONCE):
        for call in calls(store).values():
            await away(call)
    own_postgres.start()
    with pytest.raises(StoreAway):
        await store.write(rows(3))
    assert await held(store) > before
    assert len((await store.bars([PAIR], EVER, MINUTE))[PAIR]) == 3


async def test_questions_find_a_restarted_server_at_once(patient_store, own_postgres):
    """Broken connections are replaced before they are used, and so is the writing one."""
    before = await patient_store.lease()
    own_postgres.stop()
    own_postgres.start()
    assert set(await patient_store.newest([PAIR])) == {PAIR}
    assert await patient_store.lease() > before


async def test_an_ambiguous_write_may_be_repeated(own_postgres):
    """If the server dies during a write and the write is repeated, every row exists once."""
    written = rows(20_000)
    async with PostgresStore(own_postgres.dsn, interval=MINUTE, timeout=LONG) as store:
        await store.lease()

        async def write():
            while True:
                await store.write(written)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(away, write)
            await trio.sleep(0.1)
            own_postgres.kill()
        own_postgres.start()
        await held(store)
        for _ in range(2):
            await store.write(written)
        found = (await store.bars([PAIR], EVER, MINUTE))[PAIR]
        assert [found[row.end - MINUTE] for row in written] == [row.bar for row in written]
    with psycopg.connect(own_postgres.dsn) as connection:
        assert connection.execute("SELECT count(*) FROM price_aggregates").fetchone() == (20_000,)
