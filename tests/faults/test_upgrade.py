"""An upgrade: a service goes on with what the release before has left in Redis and in the spool."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import psycopg
import pytest
import redis
import trio
from rig import (
    Exchange,
    Sent,
    all_sent,
    check_volumes,
    eventually,
    exchanges,
    now_ms,
    playing,
    rows_are_right,
    service,
    settings_for,
    spools,
    within_span,
)

from marketflow.adapters.cache import bar_fields
from marketflow.adapters.db import migrations, statements
from marketflow.adapters.state import spool
from marketflow.app.share import sequences
from marketflow.domain.bars import Bar
from marketflow.embedded import EmbeddedRedis

INTERVAL = 8_000
SCHEMA_BEFORE = 2
WRITE_BEFORE = """
INSERT INTO price_aggregates AS stored (
    pair_name, exchange, "timestamp", average_price, min_price, max_price, open_price, close_price,
    open_time, close_time, update_count
)
SELECT symbol, exchange, 'epoch'::timestamptz + "end" * interval '1 ms', average, min, max, open, close,
       'epoch'::timestamptz + open_time * interval '1 ms',
       'epoch'::timestamptz + close_time * interval '1 ms', count
FROM json_to_recordset(%(rows)s::json) AS row (
    symbol text, exchange text, "end" bigint, average float8, min float8, max float8,
    open float8, close float8, open_time bigint, close_time bigint, count bigint
)
ON CONFLICT (pair_name, exchange, "timestamp") DO UPDATE SET
    (average_price, min_price, max_price, open_price, close_price, open_time, close_time, update_count)
    = (excluded.average_price, excluded.min_price, excluded.max_price, excluded.open_price,
       excluded.close_price, excluded.open_time, excluded.close_time, excluded.update_count)
WHERE excluded.update_count >= stored.update_count
"""
"""The statement of version 0.1, but for its check of rows by others."""


def forms(url: str) -> set[bytes]:
    """The first bytes of all bars in Redis."""
    with redis.Redis.from_url(url) as client:
        keys = client.keys("bars:*")
        return {value[:1] for key in keys for value in client.hvals(key)}


def tell(players: Sequence[Exchange], *, telling: bool) -> None:
    """Whether exchanges tell volumes from now on."""
    for each in players:
        each.telling = telling


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Write as version 0.1 did, until it is undone: its forms, and the smaller sequences that it gave."""

    def as_json(bar: Bar, _second: int) -> bytes:
        return msgspec.json.encode(msgspec.structs.astuple(bar)[:10])

    monkeypatch.setattr(bar_fields, "pack_bar", as_json)
    monkeypatch.setattr(spool, "encode", msgspec.json.encode)
    monkeypatch.setattr(sequences, "PER_MS", 1_000)
    monkeypatch.setattr(sequences, "PLACES", 1)
    # It knew the schema up to number 2, and wrote rows with its columns.
    known = [each for each in migrations.known_migrations() if each.number <= SCHEMA_BEFORE]
    monkeypatch.setattr(migrations, "known_migrations", lambda: known)
    monkeypatch.setattr(statements, "WRITE", WRITE_BEFORE)
    return monkeypatch


@pytest.mark.parametrize("spooled", [False, True], ids=["in Redis", "spooled"])
async def test_an_upgrade_within_a_minute_loses_nothing(
    own_redis: EmbeddedRedis, postgres_dsn: str, tmp_path: Path, before: pytest.MonkeyPatch, spooled: bool
) -> None:
    """Rows have the updates of both, and what is written from now on has the new form.

    The release before knew no volumes, so a row that both have made says that some updates told none.
    """
    async with exchanges("exchange1", "exchange2") as players:
        tell(players, telling=False)
        settings = settings_for(
            players, own_redis.url, postgres_dsn, tmp_path, aggregation={"interval": INTERVAL, "grace": 200}
        )
        await trio.sleep((INTERVAL - now_ms() % INTERVAL) / 1_000)
        async with service(settings, players):
            async with playing(*players):
                await trio.sleep(1.5)
            await eventually(lambda: trio.to_thread.run_sync(forms, own_redis.url))
            if spooled:
                own_redis.pause()
                async with playing(*players):
                    await trio.sleep(0.5)
        if spooled:
            own_redis.resume()
            assert spools(tmp_path)
        assert await trio.to_thread.run_sync(forms, own_redis.url) == {b"["}

        before.undo()
        tell(players, telling=True)
        async with service(settings, players):
            async with playing(*players):
                await trio.sleep(1.5)
            assert b"\3" in await trio.to_thread.run_sync(forms, own_redis.url)
            await trio.sleep((INTERVAL - now_ms() % INTERVAL) / 1_000)
            await rows_are_right(postgres_dsn, all_sent(players), INTERVAL, until=now_ms())
    assert not spools(tmp_path)


SHORT = 1_000


def applied(dsn: str) -> tuple[int, list[str]]:
    """The greatest number of a migration that needs its release, and the notes about others."""
    with psycopg.connect(dsn) as connection:
        (newest,) = connection.execute("SELECT max(number) FROM marketflow_migrations").fetchone() or (0,)
        notes = connection.execute(
            "SELECT name FROM marketflow_settings WHERE name LIKE 'compatible migration %%' ORDER BY 1"
        ).fetchall()
    return newest, [name for (name,) in notes]


async def test_the_release_before_starts_on_the_schema_with_volumes(
    own_redis: EmbeddedRedis, postgres_dsn: str, tmp_path: Path, before: pytest.MonkeyPatch
) -> None:
    """An upgrade can be taken back, and done again. Rows that the release before wrote have no volume.

    Redis loses everything between the releases, so that rows alone tell what was before.
    """

    async def play(*, telling: bool) -> list[Sent]:
        """Run a service for a second; returns what it was sent, once all of that is in rows."""
        tell(players, telling=telling)
        already = len(all_sent(players))
        async with service(settings, players):
            async with playing(*players):
                await trio.sleep(1)
            await rows_are_right(postgres_dsn, all_sent(players), SHORT, within=SHORT / 1_000 + 5)
        with redis.Redis.from_url(own_redis.url) as client:
            await trio.to_thread.run_sync(client.flushall)
        await trio.sleep((SHORT - now_ms() % SHORT) / 1_000)
        return sorted(all_sent(players), key=lambda each: each.order)[already:]

    as_before = migrations.known_migrations, statements.WRITE
    before.undo()
    async with exchanges("exchange1") as players:
        settings = settings_for(
            players, own_redis.url, postgres_dsn, tmp_path, aggregation={"interval": SHORT, "grace": 200}
        )
        first = await play(telling=True)
        newest, notes = await trio.to_thread.run_sync(applied, postgres_dsn)
        assert (newest, notes) == (
            SCHEMA_BEFORE,
            [f"compatible migration {number}" for number in (3, 4, 5, 6, 7)],
        )

        before.setattr(migrations, "known_migrations", as_before[0])
        before.setattr(statements, "WRITE", as_before[1])
        second = await play(telling=False)
        assert await trio.to_thread.run_sync(applied, postgres_dsn) == (newest, notes)

        before.undo()
        tell(players, telling=True)
        async with service(settings, players) as it:
            for some, telling in ((first, True), (second, False)):
                symbol, times = some[0].symbol, [each.timestamp for each in some]
                path = f"/candles/{symbol}?interval=1s&start={min(times)}&end={max(times)}"
                candles = (await it.get(path))["candles"]
                assert candles
                for candle in candles:
                    found = within_span(some, candle["start"], candle["end"], symbol)
                    assert candle["updates"] == len(found)
                    check_volumes(candle, found)
                    assert (candle["volume"] is None) != telling
