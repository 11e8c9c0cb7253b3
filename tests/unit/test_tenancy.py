"""What a node says when a term ends, and some of what it has had is where no other node finds it."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager, contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import trio
from builders import EXCHANGES, World, until
from structlog.testing import capture_logs

from marketflow.app.cluster.hold import Ending, Hold
from marketflow.app.cluster.tenancy import Tenancy
from marketflow.app.ports import Term
from marketflow.app.share.spooling import BarsLost

EXCHANGE = EXCHANGES[0]
HOUR_SECONDS = 3_600


class Feeding:
    """An update each minute."""

    feed_ = None

    def __init__(self, world: World) -> None:
        self.world = world

    def keep(self, _) -> float:
        """Nothing is recorded."""
        return math.inf

    async def sift(self, *_) -> None:
        """Nothing was recorded."""

    def cut_off(self) -> None:
        """It has ended by then."""

    async def feed(self, _, leaving: trio.Event) -> None:
        while not leaving.is_set():
            self.world.send_one(1.0)
            with trio.move_on_after(60):
                await leaving.wait()


@asynccontextmanager
async def window_of(*_):
    yield None


@contextmanager
def during(*_):
    yield


async def end_of_term(world: World, seconds: float, ending: Ending) -> list[dict]:
    """Have an exchange for a while; returns what was logged at its end."""
    figures = SimpleNamespace(counted=during, fenced={"redis": 0, "postgres": 0})
    tenancy = Tenancy(
        window_of=window_of,
        share_of=lambda *_: world.share,
        feeding_of=lambda _: (Feeding(world), None),
        shared=(),
        views=SimpleNamespace(owned=during),
        figures=figures,
        reporting=lambda *_: nullcontext(),
        clock=world.clock,
        spool_seconds=1.0,
    )
    hold = Hold(Term(EXCHANGE, 1, "boot1"), trio.current_time)
    with capture_logs() as lines:
        async with trio.open_nursery() as nursery:

            async def end() -> None:
                await trio.sleep(seconds)
                (hold.lost if ending is Ending.LOST else hold.leaving).set()

            nursery.start_soon(end)
            ended = await tenancy.run(hold, Feeding(world), None)
        assert ended.how is ending
    return [line for line in lines if line["log_level"] == "error"]


async def test_an_exchange_that_is_given_back_with_redis_away_leaves_its_bars_in_the_spool(autojump_clock):
    world = World()
    world.window.away = True
    assert await end_of_term(world, 30, Ending.IN_ORDER) == []
    assert world.spool.bars


async def test_rows_that_only_a_node_that_lost_its_exchange_could_have_written_are_told(autojump_clock):
    """Redis keeps the bars of the last hour for the next node. With older ones the rows are lost."""
    world = World()
    world.store.away = True
    (line,) = await end_of_term(world, 2 * HOUR_SECONDS, Ending.LOST)
    assert (line["event"], line["exchange"]) == ("rows of closed intervals lost", EXCHANGE)
    assert line["rows"] >= 50


async def test_what_came_after_the_last_write_of_a_term_that_is_over_is_not_spooled(autojump_clock):
    """The next owner may have taken it in, too. It does not matter which store has told first."""
    world = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.share.run)
        world.send_one(1.0)
        await until(lambda: world.flusher.up and world.book.flushes.drained)
        world.window.away = True
        await trio.sleep(1)
        world.send_one(2.0)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    world.share.give_up()
    with pytest.raises(BarsLost):
        await world.share.save(1.0)
    assert [each.bar.close for each in world.spool.bars] == [1.0]


async def test_with_both_stores_there_is_nothing_to_tell(autojump_clock):
    for ending in (Ending.IN_ORDER, Ending.LOST):
        assert await end_of_term(World(), 30, ending) == []
