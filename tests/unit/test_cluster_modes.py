"""The mode of a cluster, as a node tells it and switches it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from builders import WallClock

from marketflow.adapters.db.memory_leases import LeaseTable, MemoryLeases
from marketflow.app.answers import NothingCanAnswer
from marketflow.app.cluster import modes as cluster_modes
from marketflow.app.cluster.clock_offset import ClockOffset
from marketflow.app.cluster.modes import ClusterModes
from marketflow.app.cluster.sight import LastSight, WatchedLeases
from marketflow.app.instruments.stores import StoreState
from marketflow.app.ports import Node, StoreAway, Term, WantedMode
from marketflow.domain.modes import Mode

BOTH: dict[str, Mode] = {"exchange1": "live", "test1": "test"}
NODE = Node("a", "boot1", "http://a", "all", "1")
TERM = Term("exchange1", 1, "t1")
LONG = 60_000


class Watcher:
    """A node that looks at the leases, and does nothing else."""

    def __init__(self, table: LeaseTable) -> None:
        self.store = MemoryLeases(table)
        self.sight = LastSight()
        self.leases = WatchedLeases(self.store, self.sight, ClockOffset(WallClock()), StoreState("postgres"))
        self.modes = ClusterModes("live", BOTH, self.sight, self.leases)

    async def run(self) -> None:
        while True:
            with suppress(StoreAway):
                await self.leases.look()
            await trio.sleep(0.25)


@asynccontextmanager
async def watching(*watchers: Watcher) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        for watcher in watchers:
            nursery.start_soon(watcher.run)
        yield
        nursery.cancel_scope.cancel()


@pytest.fixture
def table() -> LeaseTable:
    table = LeaseTable()
    table.found("live")
    return table


async def done_by(switch: Callable[[], object], *, after: float) -> None:
    await trio.sleep(after)
    switch()


async def test_before_a_look_it_is_the_configured_one(table: LeaseTable, autojump_clock: object) -> None:
    watcher = Watcher(table)
    table.switch("test", 1)
    assert (watcher.modes.mode, watcher.modes.of_mode) == ("live", ["exchange1"])
    async with watching(watcher):
        await watcher.sight.next_look()
        assert (watcher.modes.mode, watcher.modes.of_mode) == ("test", ["test1"])


async def test_a_switch_waits_until_all_of_the_old_mode_is_released(
    table: LeaseTable, autojump_clock: object
) -> None:
    watcher = Watcher(table)
    table.take(TERM, NODE, LONG, None)
    async with watching(watcher), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: done_by(lambda: table.release([TERM]), after=10.0))
        began = trio.current_time()
        assert await watcher.modes.switch("test")
        assert trio.current_time() - began >= 10.0
        assert watcher.modes.mode == "test"
        assert not await watcher.modes.switch("test"), "it has it already"
    assert table.wanted == WantedMode("test", 2)


async def test_until_then_the_mode_is_the_old_one(table: LeaseTable, autojump_clock: object) -> None:
    watcher = Watcher(table)
    table.take(TERM, NODE, LONG, None)
    table.switch("test", 1)
    async with watching(watcher):
        await watcher.sight.next_look()
        assert watcher.modes.mode == "live"
        table.release([TERM])
        await watcher.sight.next_look()
        assert watcher.modes.mode == "test"


async def test_switches_on_two_nodes_are_done_one_after_the_other(
    table: LeaseTable, autojump_clock: object
) -> None:
    first, second = Watcher(table), Watcher(table)
    changed: dict[str, bool] = {}

    async def switch(name: str, watcher: Watcher, mode: Mode) -> None:
        changed[name] = await watcher.modes.switch(mode)

    async with watching(first, second):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(switch, "first", first, "test")
            nursery.start_soon(switch, "second", second, "test")
        assert sorted(changed.values()) == [False, True], "only one of them has changed it"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(switch, "back", first, "live")
            nursery.start_soon(switch, "stay", second, "test")
    assert changed["back"]


async def test_with_the_database_away_nothing_can_answer(table: LeaseTable, autojump_clock: object) -> None:
    watcher = Watcher(table)
    watcher.store.away = True
    async with watching(watcher):
        with pytest.raises(NothingCanAnswer):
            await watcher.modes.switch("test")
    assert table.wanted == WantedMode("live", 1)


async def test_a_switch_that_takes_long_is_not_waited_for(table: LeaseTable, autojump_clock: object) -> None:
    watcher = Watcher(table)
    table.take(TERM, NODE, LONG, None)
    async with watching(watcher):
        began = trio.current_time()
        with pytest.raises(NothingCanAnswer):
            await watcher.modes.switch("test")
        assert trio.current_time() - began == pytest.approx(cluster_modes.SWITCH_SECONDS)
    assert table.wanted == WantedMode("test", 2), "it goes on"


async def test_a_database_that_has_forgotten_the_switch_is_not_believed(
    table: LeaseTable, autojump_clock: object
) -> None:
    watcher = Watcher(table)
    table.take(TERM, NODE, LONG, None)

    def go_back() -> None:
        table.wanted = WantedMode("live", 1)

    async with watching(watcher), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: done_by(go_back, after=5.0))
        with pytest.raises(NothingCanAnswer):
            await watcher.modes.switch("test")
