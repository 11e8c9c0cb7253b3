"""A stop that takes longer than it may is cut short, says so, and still keeps what no store has taken."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
from rig import eventually, exchanges, playing, settings_for

from marketflow.app.clocks import SystemClock
from marketflow.assembly import assembled
from marketflow.embedded import EmbeddedRedis
from marketflow.service import Running, serve


def spooled(directory: Path) -> list[Path]:
    return list(directory.glob("spool-*.json"))


async def test_a_stop_that_is_cut_short_is_no_clean_one(
    own_redis: EmbeddedRedis, postgres_dsn: str, tmp_path: Path
) -> None:
    """Redis hangs in the last write for longer than the whole stop may take."""
    stopping = trio.Event()
    async with exchanges("exchange1") as players, playing(*players):
        settings = settings_for(players, own_redis.url, postgres_dsn, tmp_path, redis={"timeout": 2_000})
        settings = attrs.evolve(settings, shutdown_timeout=500)
        with pytest.RaisesGroup(TimeoutError, flatten_subgroups=True):
            async with trio.open_nursery() as nursery:
                service: Running = await nursery.start(partial(serve, settings, stopping))
                await eventually(lambda: service.report().updates.cached > 0)
                own_redis.pause()
                await eventually(lambda: service.report().updates.pending > 0)
                stopping.set()
    own_redis.resume()
    updates = service.report().updates
    assert updates.dropped.get("shutdown", 0) > 0
    assert updates.accepted == updates.cached + updates.expired + sum(updates.dropped.values())
    assert spooled(tmp_path), "bars that Redis did not take are spooled"


async def test_a_new_password_makes_no_other_stores(
    redis_url: str, postgres_dsn: str, tmp_path: Path
) -> None:
    """Else the next start would not find what the last stop has spooled."""
    names = set()
    async with exchanges("exchange1") as players:
        for dsn in (postgres_dsn, postgres_dsn.replace("postgres@", "postgres:secret@")):
            settings = settings_for(players, redis_url, dsn, tmp_path)
            async with assembled(settings, SystemClock(), None) as parts:
                names.add(parts.spooling._spool._path)
    assert len(names) == 1
