"""The stores of a simulated cluster: shards of Redis with a fence, and a PostgreSQL with leases."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import attrs
import trio

from marketflow.adapters.cache.memory import MemoryFlush, MemoryShelf
from marketflow.adapters.db.memory_leases import LeaseRow, LeaseTable, MemoryLeases
from marketflow.app.ports import NEVER, Aggregate, Change, Fenced, Node, Sight, StoreAway, Term
from marketflow.app.share.fence import fence_of
from tests.simulation.stores import (
    Link,
    SimulatedPostgres,
    SimulatedRedis,
    SimulatedStore,
    SimulatedWindow,
)

T = TypeVar("T")
CHANGES_KEPT = 40
"""So few that a mirror which is cut off for some seconds misses some."""


@attrs.define
class FencedShelf(MemoryShelf):
    """What a shard holds of one exchange."""

    fence: str | None = None
    changes: list[Change] = attrs.field(factory=list)
    """The newest ones, the oldest first."""
    forgotten: int = 0
    """How often it has forgotten something."""

    def empty(self) -> None:
        """Forget everything."""
        super().empty()
        self.fence = None
        self.changes.clear()
        self.forgotten += 1


class Shard(SimulatedRedis):
    """The server that has one exchange."""

    def __init__(self) -> None:
        super().__init__()
        self.shelf: FencedShelf = FencedShelf()
        self.sealed: Callable[[Term], None] = lambda _: None
        """Called before a term's fence is set."""

    def snapshot(self) -> Callable[[], None]:
        """Remember the state of this moment; calling what is returned goes back to it."""
        restore, fence, changes = super().snapshot(), self.shelf.fence, list(self.shelf.changes)

        def restore_all() -> None:
            restore()
            self.shelf.fence = fence
            self.shelf.changes[:] = changes
            self.shelf.forgotten += 1

        return restore_all


class FencedWindow(SimulatedWindow):
    """Fills the port Window for one term. A write has no effect if the fence has changed since a look."""

    def __init__(self, term: Term, *, link: Link, server: Shard) -> None:
        super().__init__(boot=term.id, link=link, server=server)
        self._term = term
        self._shard = server
        self._watched = False
        """Whether the fence was ours at the last look, and no write has failed since."""
        self._number = 0
        """Counts the changes that were sent."""
        self._numbers: dict[int, int] = {}
        """By the identity of a write that was sent, its number."""

    async def look(self) -> Sight:
        """See the port."""

        def look() -> Sight:
            self._watched = self._shard.shelf.fence == fence_of(self._term)
            return Sight(self._shard.shelf.fence, self._shard.shelf.marker)

        return await self._link.carry(look)

    async def take(self, found: Sight) -> bool:
        """See the port."""

        def take() -> bool:
            if self._shard.shelf.fence != found.holder:
                return False
            self._shard.sealed(self._term)
            self._shard.shelf.fence = fence_of(self._term)
            self._watched = True
            return True

        return await self._link.carry(take)

    async def release(self) -> None:
        """See the port."""

    async def post(self, flush: MemoryFlush) -> bool:
        """See the port."""
        if not self._watched:
            raise StoreAway("simulated: the fence was not looked at since the last failure")
        if flush.flush.bars:
            self._number += 1
            self._numbers[id(flush)] = self._number
        try:
            return await super().post(flush)
        except StoreAway:
            self._watched = False
            raise

    def _takes_late(self) -> bool:
        return self._shard.shelf.fence == fence_of(self._term)

    def _write(self, write: MemoryFlush) -> None:
        if not self._takes_late():
            raise StoreAway("simulated: the fence has changed")
        super()._write(write)
        if write.flush.bars and (number := self._numbers.get(id(write))) is not None:
            place = f"{self._term.epoch}-{number}"
            self._shard.shelf.changes.append(Change(place, self._term.id, tuple(write.flush.bars)))
            del self._shard.shelf.changes[:-CHANGES_KEPT]


class ClusterPostgres(SimulatedPostgres):
    """The server's state, with leases."""

    def __init__(self) -> None:
        super().__init__()
        self.table = LeaseTable()
        self.breaks = 0
        """How often it has ended all connections."""
        self.went_back_at = -math.inf
        """When it came back older the last time."""

    def break_connections(self) -> None:
        """End all of them."""
        super().break_connections()
        self.breaks += 1

    def snapshot(self) -> Callable[[], None]:
        """Remember the state of this moment; calling what is returned goes back to it."""
        restore = super().snapshot()
        leases, nodes, wanted = dict(self.table.leases), dict(self.table.nodes), self.table.wanted

        def restore_all() -> None:
            restore()
            self.table.leases, self.table.nodes = dict(leases), dict(nodes)
            self.table.wanted = wanted
            self.went_back_at = trio.current_time()

        return restore_all


class TermStore(SimulatedStore):
    """Fills the port AggregateStore for one term, which may write as long as it is the last one."""

    def __init__(self, interval: int, term: Term, *, link: Link, server: ClusterPostgres) -> None:
        super().__init__(interval, boot=term.id, link=link, server=server)
        self._term = term
        self._postgres = server
        self._connected_at: int | None = None
        """How many breaks of connections came before ours was made; None without one."""

    @property
    def _connected(self) -> bool:
        return self._connected_at == self._postgres.breaks

    @property
    def _holds_lock(self) -> bool:
        return self._postgres.table.has(self._term)

    async def lease(self) -> int:
        """See the port."""

        def check() -> int:
            self._check_term()
            if not self._connected:
                # Another server may have taken over, with older rows.
                self._connected_at = self._postgres.breaks
                self._leases += 1
            return self._leases

        try:
            return await self._link.carry(check)
        except StoreAway:
            self.leave()
            raise

    def leave(self) -> None:
        """Close the connection. No lock belongs to it."""
        self._connected_at = None

    async def write(self, aggregates: Sequence[Aggregate]) -> None:
        """See the port."""
        asked, connected_at = trio.current_time(), self._connected_at

        def put() -> None:
            for aggregate in aggregates:
                self._server.written(self._boot, aggregate, asked)
                self._put(aggregate)

        def write() -> None:
            self._check()
            put()

        def late() -> None:
            if connected_at == self._postgres.breaks and self._holds_lock:
                put()

        try:
            await self._link.carry(write, late=late)
        except StoreAway:
            self.leave()
            raise

    def _is_in_scope(self, exchange: str) -> bool:
        return exchange == self._term.exchange

    async def _answer(self, *, held: bool = False) -> None:
        await self._link.carry(self._check if held else _nothing)

    def _check(self) -> None:
        """Check what a statement that writes depends on."""
        if not self._connected:
            raise StoreAway("simulated: not connected")
        self._check_term()

    def _check_term(self) -> None:
        if not self._holds_lock:
            row = self._postgres.table.leases.get(self._term.exchange)
            raise Fenced("simulated: not the last term", NEVER if row is None else row.term.epoch)


def _nothing() -> None:
    """A question, which depends on no lease."""


class SimulatedLeases(MemoryLeases):
    """Fills the port Leases for one node."""

    def __init__(
        self, link: Link, server: ClusterPostgres, taken: Callable[[LeaseRow | None, LeaseRow], None]
    ) -> None:
        """`taken`: called with the lease of before, and the one that was taken."""
        super().__init__(server.table)
        self._link = link
        self._taken = taken

    async def take(
        self, term: Term, node: Node, lasts: int, after: Term | None, generation: int | None = None
    ) -> bool:
        """See the port."""

        def take() -> bool:
            row = self.table.leases.get(term.exchange)
            if not self.table.take(term, node, lasts, after, generation):
                return False
            self._taken(row, self.table.leases[term.exchange])
            return True

        return await self._carry(take)

    async def _carry(self, request: Callable[[], T]) -> T:
        return await self._link.carry(request, late=request)


def bars_of(shelf: FencedShelf) -> dict[tuple[Any, int, str], int]:
    """How many updates a shard has, by pair, second (ms) and term."""
    return {
        (pair, second, boot): bar.count
        for pair, bars in shelf.bars.items()
        for (second, boot), bar in bars.items()
    }
