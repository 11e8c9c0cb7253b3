"""Shares of disjoint exchanges on the same stores: each has its own lease, bars, old rows and spool."""

from __future__ import annotations

import pytest

from marketflow.adapters.cache.redis import open_redis_window
from marketflow.adapters.db import row_writes
from marketflow.adapters.db.lock import LOCK, lock_of
from marketflow.adapters.db.postgres import PostgresStore
from marketflow.app.ports import ALL, Aggregate, Flush, Scope, Sight, StoreTaken
from marketflow.domain.bars import Bar
from marketflow.domain.periods import DAY, MINUTE, Span

ONE, OTHER = Scope(frozenset({"exchange1"})), Scope(frozenset({"exchange2", "exchange3"}))
SECOND = 1_767_225_600_000
EVER = Span(-(10**18), 10**18)


def test_a_scope_has_the_exchanges_it_names_or_all():
    assert "exchange1" in ONE
    assert "exchange2" not in ONE
    assert "anything" in ALL
    assert (ONE.name, OTHER.name, ALL.name) == ("exchange1", "exchange2+exchange3", "")


def test_each_scope_has_a_lock_of_its_own_and_all_has_that_of_the_releases_before():
    assert lock_of(ALL) == LOCK
    assert len({lock_of(ALL), lock_of(ONE), lock_of(OTHER)}) == 3
    assert lock_of(OTHER) == lock_of(Scope(frozenset({"exchange3", "exchange2"})))
    assert -(2**63) <= lock_of(ONE) < 2**63


async def test_leases_and_markers_in_redis_are_apart(redis_url):
    def window(boot, scope):
        return open_redis_window(redis_url, boot=boot, window_length=MINUTE, timeout=10, scope=scope)

    async with window("boot1", ONE) as first, window("boot2", OTHER) as second, window("boot3", ONE) as third:
        assert await first.take(Sight(None, None))
        assert await second.take(Sight(None, None))
        assert not await third.take(Sight(None, None))
        for place, each in enumerate((first, second)):
            bar = Bar.of_ascending([SECOND], [1.0])
            exchange = f"exchange{place + 1}"
            await each.write(each.encode(Flush((), [((exchange, "BTCUSDT"), (SECOND, f"b{place}"), bar)])))
        # Neither has found the other's marker.
        assert await first.write(first.encode(Flush((), ())))
        assert await second.write(second.encode(Flush((), ())))
        assert first.met == Sight("boot1", None)
        assert second.met == Sight("boot2", None)
        assert await first.pairs_with_bars() == [("exchange1", "BTCUSDT")]
        assert await second.pairs_with_bars() == [("exchange2", "BTCUSDT")]
        await first.release()
        assert await second.look() == Sight("boot2", "boot2:2")
        assert await third.look() == Sight(None, None)


async def test_locks_in_postgres_are_apart(postgres_dsn):
    def store(scope):
        return PostgresStore(postgres_dsn, interval=MINUTE, timeout=10, scope=scope)

    async with store(ONE) as first, store(OTHER) as second, store(ONE) as third:
        await first.lease()
        await second.lease()
        with pytest.raises(StoreTaken):
            await third.lease()


async def test_old_rows_are_deleted_by_the_scope_that_has_their_exchange(postgres_dsn, monkeypatch):
    """Rows of exchanges that are not configured any more belong to the scope of all exchanges only."""
    monkeypatch.setattr(row_writes, "DELETED_AT_ONCE", 3)
    exchanges = ["exchange1", "exchange2", "exchange3", "gone"]
    rows = [
        Aggregate(name, "BTCUSDT", start + MINUTE, Bar.of_ascending([start], [1.0]))
        for name in exchanges
        for start in range(SECOND, SECOND + 10 * MINUTE, MINUTE)
    ]

    def store_of(scope):
        return PostgresStore(postgres_dsn, interval=MINUTE, timeout=10, scope=scope)

    async def left(store):
        found = await store.bars([(name, "BTCUSDT") for name in exchanges], EVER, DAY)
        return {pair[0]: sum(bar.count for bar in bars.values()) for pair, bars in found.items()}

    limit = SECOND + 6 * MINUTE
    async with store_of(ONE) as one, store_of(OTHER) as other, store_of(ALL) as everything:
        for each in (one, other, everything):
            await each.lease()
        await everything.write(rows)
        assert [await one.delete_before(limit) for _ in range(3)] == [3, 2, 0]
        assert await left(one) == {"exchange1": 5, "exchange2": 10, "exchange3": 10, "gone": 10}
        # Two rows end at the same time as the third one.
        assert [await other.delete_before(limit) for _ in range(4)] == [4, 4, 2, 0]
        assert await left(one) == {"exchange1": 5, "exchange2": 5, "exchange3": 5, "gone": 10}
        assert [await everything.delete_before(limit) for _ in range(3)] == [3, 2, 0]
        assert await left(one) == dict.fromkeys(exchanges, 5)
