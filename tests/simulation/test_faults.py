"""Each fault that is simulated is one that a test shows on real servers, processes or disks."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import trio

from marketflow.app.ports import StoreAway
from marketflow.app.share.spooling import SpoolFailed
from tests.simulation.disk import SimulatedDisk, SimulatedSpool
from tests.simulation.plan import KINDS, shown_table
from tests.simulation.stores import Link, SimulatedPostgres, SimulatedStore

TESTS = Path(__file__).parents[1]
DOCUMENT = TESTS.parent / "docs" / "determinism.md"


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_shown_on_the_real_thing(kind):
    """The test that the kind names is there."""
    place, _, name = KINDS[kind].shown.partition("::")
    assert place.split("/")[0] in {"integration", "faults", "e2e"}
    tree = ast.parse((TESTS / place).read_text())
    assert name in {
        each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_the_document_has_the_same_table():
    """If this fails, put the output of `shown_table` there."""
    assert shown_table() in DOCUMENT.read_text()


def spool(disk):
    return SimulatedSpool(disk, lambda: False)


async def test_a_full_disk_takes_nothing_and_keeps_what_it_has():
    disk = SimulatedDisk()
    await spool(disk).save(["a"])
    disk.turn("full")
    second = spool(disk)
    assert await second.load() == ["a"]
    with pytest.raises(SpoolFailed):
        await second.save(["b"])
    assert await spool(disk).load() == ["a"]


async def test_a_file_that_could_not_be_read_is_not_removed():
    disk = SimulatedDisk()
    await spool(disk).save(["a"])
    disk.turn("unreadable")
    second = spool(disk)
    assert await second.load() == []
    disk.turn("up")
    await second.save(["b"])
    assert await spool(disk).load() == ["a", "b"]


async def test_a_disk_that_hangs_is_given_up_on(autojump_clock):
    disk = SimulatedDisk()
    disk.turn("hanging")
    began = trio.current_time()
    with pytest.raises(SpoolFailed):
        await spool(disk).save(["a"], 2.0)
    assert trio.current_time() - began == 2.0


class Middle:
    """Draws the middle."""

    def uniform(self, a, b):
        return (a + b) / 2

    def random(self):
        return 0.0


def stores():
    server = SimulatedPostgres()
    made = []
    for boot in ("first", "second"):
        link = Link(server, Middle(), 1.0)
        made += [link, SimulatedStore(60_000, boot=boot, link=link, server=server)]
    return server, *made


@pytest.mark.parametrize(("way", "free"), [("answers lost", True), ("requests lost", False)])
async def test_the_lock_stays_with_a_client_that_could_not_say_goodbye(autojump_clock, way, free):
    """Until the server notices; its own process takes it over at once when it is back."""
    server, link, first, _, _ = stores()
    await first.lease()
    link.turn(way)
    with pytest.raises(StoreAway):
        await first.lease()
    assert (server.holder is None) is free
    link.turn("up")
    await first.lease()
    assert server.holder is not None
    assert server.holder.boot == "first"


async def test_a_silent_client_is_noticed_in_time(autojump_clock):
    server, link, first, _, second = stores()
    await first.lease()
    link.turn("requests lost")
    with pytest.raises(StoreAway):
        await first.lease()
    await trio.sleep(20)
    await second.lease()
    assert server.holder.boot == "second"
