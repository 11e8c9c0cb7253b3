"""How a node of a cluster stops: nothing is taken any more, and nothing is waited for without a limit."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from marketflow.adapters.db.memory_leases import MemoryLeases
from marketflow.app.cluster.balance import Balance
from marketflow.app.cluster.candidates import Candidacy, Order
from marketflow.app.cluster.hold import Ended, Ending, Hold
from marketflow.app.cluster.holdings import Holdings, Times
from marketflow.app.cluster.member import Member
from marketflow.app.cluster.tenure import run_tenure
from marketflow.app.ports import NEVER, ClusterSight, Fenced, Node, StoreAway, Term

NODE = Node("a", "boot1", "http://a", "all", "1")
TIMES = Times(lasts=3.0, renew=1.0, scan=0.25, calm=30.0)
TERM = Term("exchange1", 1, "t1")


@attrs.define
class Tenures:
    """Each tenure lasts until the exchange is to be given back."""

    ended: Ended = attrs.field(factory=lambda: Ended(Ending.IN_ORDER))
    begun: list[str] = attrs.field(factory=list)
    ready: bool = False

    @asynccontextmanager
    async def candidacy(self, _exchange: str, *, seals: bool) -> AsyncIterator[Candidacy]:  # noqa: ARG002
        yield self

    async def __call__(self, hold: Hold) -> Ended:
        self.begun.append(hold.term.exchange)
        await hold.leaving.wait()
        return self.ended


class StoppingLeases(MemoryLeases):
    """The node is to stop in the same turn of the event loop in which a look is answered."""

    def __init__(self, stopping: trio.Event) -> None:
        super().__init__()
        self._stopping = stopping

    async def beat(self, *arguments) -> ClusterSight:
        sight = await super().beat(*arguments)
        if sight.nodes:
            self._stopping.set()
        return sight


def holdings_of(leases: MemoryLeases, tenures: Tenures) -> Holdings:
    return Holdings(leases, tenures, times=TIMES, elapsed=trio.current_time, entropy=random.Random(1))


async def test_a_stop_in_the_moment_of_a_take_leaves_nothing_behind(autojump_clock):
    """Whichever of the tasks has its turn first."""

    async def one() -> None:
        stopping = trio.Event()
        leases = StoppingLeases(stopping)
        holdings = holdings_of(leases, Tenures())
        balance = Balance({"exchange1": "live"}, lasts=TIMES.lasts, calm=TIMES.calm)
        member = Member(
            NODE,
            mode="live",
            balance=balance,
            holdings=holdings,
            leases=leases,
            times=TIMES,
            elapsed=trio.current_time,
        )
        await member.run(stopping)
        assert not holdings.holds
        assert all(lease.released for lease in (await leases.look()).leases.values())

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(one)


async def test_after_the_stop_nothing_is_taken(autojump_clock):
    leases, tenures = MemoryLeases(), Tenures()
    holdings = holdings_of(leases, tenures)
    async with trio.open_nursery() as nursery:
        holdings.candidates.take("exchange1", Order(None, NODE, None), nursery)
        holdings.stop()
        holdings.candidates.record((), nursery)
    assert not tenures.begun
    assert not (await leases.look()).leases


async def test_an_exchange_that_was_not_sealed_is_not_given_back(autojump_clock):
    """So its lease expires, and another node seals it."""
    for how, released in ((Ending.UNSEALED, False), (Ending.IN_ORDER, True)):
        leases = MemoryLeases()
        holdings = holdings_of(leases, Tenures(Ended(how)))
        async with trio.open_nursery() as nursery:
            holdings.candidates.take("exchange1", Order(None, NODE, None, seals=True), nursery)
        assert (await leases.look()).leases["exchange1"].released is released


class Away:
    """A share whose window does not answer, and which no store knows."""

    def __init__(self, answers: bool = False) -> None:
        self.leases = self.window = self
        self.answers = answers
        self.given_up = False

    async def ensure(self) -> None:
        if not self.answers:
            raise StoreAway("away")

    async def lease(self) -> None:
        raise Fenced("the database has no term of the exchange", NEVER)

    def give_up(self) -> None:
        self.given_up = True


async def test_a_node_that_stops_does_not_wait_for_a_window_that_is_away(autojump_clock):
    stopping = trio.Event()
    hold = Hold(TERM, trio.current_time, stopping)
    hold.leaving.set()
    async with trio.open_nursery() as nursery:

        async def stop() -> None:
            await trio.sleep(5)
            stopping.set()

        nursery.start_soon(stop)
        with trio.fail_after(6):
            assert await run_tenure(hold, Away(), None, None) == Ended(Ending.UNSEALED)
        assert trio.current_time() >= 5
    sealed = Hold(TERM, trio.current_time, stopping)
    sealed.leaving.set()
    assert await run_tenure(sealed, Away(answers=True), None, None) == Ended(Ending.IN_ORDER)


class Feeding:
    """Notes that it was cut off."""

    def __init__(self) -> None:
        self.is_cut_off = False

    def cut_off(self) -> None:
        self.is_cut_off = True


async def test_a_term_that_no_store_knows_is_fenced(autojump_clock):
    """A database that was restored from before tells no epoch. What was not written is counted, too."""
    share, feeding = Away(), Feeding()
    assert await run_tenure(Hold(TERM, trio.current_time), share, feeding, None) == Ended(Ending.FENCED)
    assert share.given_up
    assert feeding.is_cut_off
