"""PostgreSQL frozen, killed, stopped: every call ends in time, and nothing is written twice or lost."""

from __future__ import annotations

import time
from functools import partial

import psycopg
import pytest
import trio

from marketflow.adapters.db.postgres import PostgresStore
from marketflow.app.ports import Aggregate, StoreAway, StoreTaken
from marketflow.domain.bars import Bar
from marketflow.domain.periods import MINUTE, Span

PAIR = ("exchange1", "BTCUSDT")
EVER = Span(0, 10**15)
TIMEOUT = 0.7
SLACK = 1.0


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


async def answered(call, seconds=20):
    """What the call returns, once the server is back. A busy machine may need longer than its time limit."""
    with trio.fail_after(seconds):
        while True:
            try:
                return await call()
            except (StoreAway, StoreTaken):
                await trio.sleep(0.05)


async def held(store):
    """The hold, once the server is back."""
    return await answered(store.lease)


async def until(condition, seconds=20):
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - no event tells
            await trio.sleep(0.01)


class Pulse:
    """How long the loop once did not come round, in seconds."""

    longest = 0.0

    async def beat(self):
        while True:
            before = time.monotonic()
            await trio.sleep(0.01)
            self.longest = max(self.longest, time.monotonic() - before)


@pytest.fixture
async def store(own_postgres):
    """Held and with three rows; its reading connection is made, too."""
    async with PostgresStore(own_postgres.dsn, interval=MINUTE, timeout=TIMEOUT) as store:
        await held(store)
        await store.write(rows(3))
        assert len((await store.bars([PAIR], EVER, MINUTE))[PAIR]) == 3
        yield store
        # Whatever a test did to the server, leaving must find it able to answer or gone.
        own_postgres.resume()


async def away(call):
    """Seconds until the call said that the store is away."""
    started = time.monotonic()
    with pytest.raises(StoreAway):
        await call()
    return time.monotonic() - started


@pytest.mark.parametrize("name", ["hold", "write", "delete_before", "bars", "newest"])
async def test_a_frozen_server_is_away_within_the_time_limit(store, own_postgres, nursery, name):
    """On a connection that it had and on a new one, which the kernel accepts. The loop goes on meanwhile."""
    pulse = Pulse()
    nursery.start_soon(pulse.beat)
    own_postgres.pause()
    for _ in range(3):
        assert await away(calls(store)[name]) < TIMEOUT + SLACK
    assert pulse.longest < 0.5
    own_postgres.resume()
    await held(store)
    await answered(calls(store)[name])


async def test_after_a_freeze_it_is_another_hold(store, own_postgres):
    """Our former connection, thawed with its server, does not keep us out."""
    before = await store.lease()
    own_postgres.pause()
    await away(store.lease)
    own_postgres.resume()
    assert await held(store) > before
    await store.write(rows(4))
    assert len((await store.bars([PAIR], EVER, MINUTE))[PAIR]) == 4


async def test_many_questions_to_a_frozen_server(store, own_postgres):
    """More than there are connections: each one is told in time, and the threads end."""
    own_postgres.pause()
    waited = []

    async def ask():
        waited.append(await away(calls(store)["newest"]))

    async with trio.open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(ask)
    assert len(waited) == 30
    assert max(waited) < TIMEOUT + SLACK
    await until(lambda: store.threads == 0)
    own_postgres.resume()
    assert set(await calls(store)["newest"]()) == {PAIR}


@pytest.mark.parametrize("name", ["hold", "write", "bars"])
@pytest.mark.parametrize("connected", [True, False])
async def test_cancelling_does_not_wait_for_a_frozen_server(own_postgres, name, connected):
    """In the middle of a statement and of connecting; no thread stays behind."""
    async with PostgresStore(own_postgres.dsn, interval=MINUTE, timeout=3) as store:
        if connected or name == "write":
            await store.lease()
            await store.newest([PAIR])
        own_postgres.pause()
        started = time.monotonic()
        with trio.move_on_after(0.2) as scope:
            await calls(store)[name]()
        assert scope.cancelled_caught
        assert time.monotonic() - started < 0.7
        await until(lambda: store.threads == 0)
        own_postgres.resume()
        await held(store)


async def test_leaving_does_not_wait_for_a_frozen_server(own_postgres):
    async with PostgresStore(own_postgres.dsn, interval=MINUTE, timeout=30) as store:
        await store.lease()
        await store.newest([PAIR])
        own_postgres.pause()
        started = time.monotonic()
    assert time.monotonic() - started < 1.5
    own_postgres.resume()
    async with PostgresStore(own_postgres.dsn, interval=MINUTE, timeout=5) as successor:
        await held(successor)


@pytest.mark.parametrize("ending", ["kill", "stop"])
async def test_a_server_that_went_and_came_back(store, own_postgres, ending):
    """Away at once, then another hold on the same rows."""
    before = await store.lease()
    getattr(own_postgres, ending)()
    for call in calls(store).values():
        assert await away(call) < TIMEOUT
    own_postgres.start()
    with pytest.raises(StoreAway):
        await store.write(rows(3))
    assert await held(store) > before
    assert len((await store.bars([PAIR], EVER, MINUTE))[PAIR]) == 3


async def test_questions_find_a_restarted_server_at_once(store, own_postgres):
    """Connections that broke meanwhile are replaced before they are used, the writing one too."""
    before = await store.lease()
    own_postgres.stop()
    own_postgres.start()
    assert set(await store.newest([PAIR])) == {PAIR}
    assert await store.lease() > before


async def test_an_ambiguous_write_may_be_repeated(own_postgres):
    """The server dies at some moment of the write. Repeated, every row is there once."""
    written = rows(20_000)
    async with PostgresStore(own_postgres.dsn, interval=MINUTE, timeout=20) as store:
        await store.lease()

        async def write():
            with pytest.raises(StoreAway):
                await store.write(written)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
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
