"""An upgrade: a service goes on with what the release before has left in Redis and in the spool."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import redis
import trio
from rig import (
    all_sent,
    eventually,
    exchanges,
    now_ms,
    playing,
    rows_are_right,
    service,
    settings_for,
    spools,
)

from marketflow.adapters.cache import bar_fields
from marketflow.adapters.state import spool
from marketflow.app.share import sequences
from marketflow.domain.bars import Bar
from marketflow.embedded import EmbeddedRedis

INTERVAL = 8_000


def forms(url: str) -> set[bytes]:
    """The first bytes of all bars in Redis."""
    with redis.Redis.from_url(url) as client:
        keys = client.keys("bars:*")
        return {value[:1] for key in keys for value in client.hvals(key)}


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Write as version 0.1 did, until it is undone: its forms, and the smaller sequences that it gave."""

    def as_json(bar: Bar, _second: int) -> bytes:
        return msgspec.json.encode(msgspec.structs.astuple(bar)[:10])

    monkeypatch.setattr(bar_fields, "pack_bar", as_json)
    monkeypatch.setattr(spool, "_encode", msgspec.json.encode)
    monkeypatch.setattr(sequences, "PER_MS", 1_000)
    monkeypatch.setattr(sequences, "PLACES", 1)
    return monkeypatch


@pytest.mark.parametrize("spooled", [False, True], ids=["in Redis", "spooled"])
async def test_an_upgrade_within_a_minute_loses_nothing(
    own_redis: EmbeddedRedis, postgres_dsn: str, tmp_path: Path, before: pytest.MonkeyPatch, spooled: bool
) -> None:
    """Rows have the updates of both, and what is written from now on has the new form."""
    async with exchanges("exchange1", "exchange2") as players:
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
        async with service(settings, players):
            async with playing(*players):
                await trio.sleep(1.5)
            assert b"\2" in await trio.to_thread.run_sync(forms, own_redis.url)
            await trio.sleep((INTERVAL - now_ms() % INTERVAL) / 1_000)
            await rows_are_right(postgres_dsn, all_sent(players), INTERVAL, until=now_ms())
    assert not spools(tmp_path)
