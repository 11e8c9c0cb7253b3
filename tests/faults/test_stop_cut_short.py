"""A stop that takes too long is cut short, reports it, and still saves what no store has taken."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
from rig import Counts, Exchange, eventually, exchanges, playing, settings_for
from slow_machine import SlowClock, within
from structlog.testing import capture_logs

from marketflow.adapters.state.spool import FileSpool
from marketflow.app.share.spooling import BarsLost
from marketflow.config import Settings
from marketflow.embedded import EmbeddedRedis
from marketflow.service import CLOSE_GRACE, SPOOL_GRACE, SPOOL_LEAST, Running, StopTime, serve


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


NOWHERE = "127.0.0.1:9"
"""Only root could listen there."""


async def stopped_without_stores(settings: Settings, player: Exchange) -> Counts:
    """Run until some updates are accepted, and stop; returns the counters."""
    stopping = trio.Event()
    async with playing(player), trio.open_nursery() as nursery:
        service: Running = await nursery.start(partial(serve, settings, stopping))
        await eventually(lambda: service.report().updates.accepted > 0)
        stopping.set()
    return service.report().updates


async def brought_in(settings: Settings) -> int:
    """The number of bars that a start imports."""
    stopping = trio.Event()
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve, settings, stopping))
            stopping.set()
    return sum(each["bars"] for each in logs if each["event"] == "spooled bars brought in")


@pytest.mark.parametrize(
    ("redis_url", "dsn", "same"),
    [
        (f"redis://:secret@{NOWHERE}/0?socket_timeout=1", f"postgresql://u:secret@{NOWHERE}/d", True),
        (f"redis://{NOWHERE}/0", "service=there user=u", True),
        (f"redis://{NOWHERE}/0?db=5", f"postgresql://u@{NOWHERE}/d", False),
        (f"redis://{NOWHERE}/0", f"postgresql://u@{NOWHERE}/d?hostaddr=127.0.0.2", False),
        (f"redis://{NOWHERE}/0", "service=elsewhere user=u", False),
    ],
)
async def test_bars_get_into_no_other_stores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redis_url: str, dsn: str, same: bool
) -> None:
    """A spool waits for its own stores, under any name of the others."""
    services = tmp_path / "services"
    hosts = {"there": "127.0.0.1", "elsewhere": "127.0.0.2"}
    services.write_text("".join(f"[{name}]\nhost={hosts[name]}\nport=9\ndbname=d\n" for name in hosts))
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    state = tmp_path / "state"
    async with exchanges("exchange1") as players:
        first = settings_for(players, f"redis://{NOWHERE}/0", f"postgresql://u@{NOWHERE}/d", state)
        await stopped_without_stores(first, players[0])
        (spool,) = spooled(state)
        content = spool.read_bytes()
        assert (await brought_in(settings_for(players, redis_url, dsn, state)) > 0) == same
        if not same:
            assert spool.read_bytes() == content
            assert await brought_in(first) > 0


async def test_an_unreadable_spool_outlives_the_next_stop(tmp_path: Path) -> None:
    """It is kept, since it may have bars that are nowhere else."""
    async with exchanges("exchange1") as players:
        settings = settings_for(players, f"redis://{NOWHERE}/0", f"postgresql://u@{NOWHERE}/d", tmp_path)
        await stopped_without_stores(settings, players[0])
        (unreadable,) = spooled(tmp_path)
        content = unreadable.read_bytes()[:-9]
        unreadable.write_bytes(content)
        await stopped_without_stores(settings, players[0])
        assert unreadable.read_bytes() == content
        assert len(spooled(tmp_path)) == 2
        assert await brought_in(settings) > 0


async def test_a_stop_that_can_spool_nothing_is_no_clean_one(tmp_path: Path) -> None:
    """The start warns of it, and the error names what is lost."""
    (tmp_path / "file").write_text("no directory")
    async with exchanges("exchange1") as players:
        settings = settings_for(
            players, f"redis://{NOWHERE}/0", f"postgresql://u@{NOWHERE}/d", tmp_path / "file" / "state"
        )
        with capture_logs() as logs, pytest.RaisesGroup(BarsLost, flatten_subgroups=True) as caught:
            await stopped_without_stores(settings, players[0])
    lost: BaseException = caught.value
    while isinstance(lost, BaseExceptionGroup):
        (lost,) = lost.exceptions
    assert isinstance(lost, BarsLost)
    assert lost.exchanges == ["exchange1"]
    assert lost.count > 0
    warnings = [each["event"] for each in logs if each["log_level"] == "warning"]
    assert any(event.startswith("spool cannot be") for event in warnings)
    assert "bars spooled" not in warnings


async def test_a_stop_that_is_cut_short_and_can_spool_nothing_says_both(
    own_redis: EmbeddedRedis, postgres_dsn: str, tmp_path: Path
) -> None:
    """Neither error hides the other."""
    (tmp_path / "file").write_text("no directory")
    stopping = trio.Event()
    async with exchanges("exchange1") as players, playing(*players):
        settings = settings_for(
            players, own_redis.url, postgres_dsn, tmp_path / "file" / "state", redis={"timeout": 2_000}
        )
        settings = attrs.evolve(settings, shutdown_timeout=500)
        with pytest.RaisesGroup(TimeoutError, BarsLost, flatten_subgroups=True):
            async with trio.open_nursery() as nursery:
                service: Running = await nursery.start(partial(serve, settings, stopping))
                await eventually(lambda: service.report().updates.cached > 0)
                own_redis.pause()
                await eventually(lambda: service.report().updates.pending > 0)
                stopping.set()
    own_redis.resume()


async def test_a_disk_that_hangs_cannot_hold_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time limit covers all steps of a stop together."""
    released = trio.Event()
    async with exchanges("exchange1") as players:
        settings = settings_for(players, f"redis://{NOWHERE}/0", f"postgresql://u@{NOWHERE}/d", tmp_path)
        settings = attrs.evolve(settings, shutdown_timeout=3_000)
        monkeypatch.setattr(os, "fsync", lambda _: trio.from_thread.run(released.wait))
        # On a slow machine it is also told that the stop was cut short.
        with within(5), pytest.raises(BaseExceptionGroup) as caught:
            await stopped_without_stores(settings, players[0])
        assert caught.group_contains(BarsLost)
        released.set()


async def test_a_stop_during_the_start_does_not_wait_for_a_disk_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: SlowClock
) -> None:
    """The start reads a spool. The stop leaves it to the next start."""

    async def hangs(_: FileSpool) -> None:
        reading.set()
        await trio.sleep_forever()

    monkeypatch.setattr(FileSpool, "load", hangs)
    reading, stopping = trio.Event(), trio.Event()
    settings = settings_for([], f"redis://{NOWHERE}/0", f"postgresql://u@{NOWHERE}/d", tmp_path)
    settings = attrs.evolve(settings, shutdown_timeout=10_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve, settings, stopping))
        await reading.wait()
        stopping.set()
        began = clock.seconds
    assert clock.seconds - began < 5


@pytest.mark.parametrize("limit", [0.001, 1.0, 2.0, 6.0, 10.0, 60.0])
async def test_the_time_of_a_stop_adds_up(limit: float, autojump_clock: trio.testing.MockClock) -> None:
    """Stages, spool and closing together take the limit at most, unless that is very short."""
    time = StopTime(limit)
    assert time.for_the_spool >= SPOOL_LEAST
    time.begin()
    began = trio.current_time()
    assert began < time.stages_end < began + limit
    await trio.sleep_until(time.stages_end)
    after_spool = trio.current_time() + time.for_the_spool
    assert time.for_the_spool >= SPOOL_LEAST
    if limit >= 6:
        assert time.for_the_spool == pytest.approx(SPOOL_GRACE)
    if limit >= 4:
        assert after_spool + CLOSE_GRACE <= began + limit + 1e-6
