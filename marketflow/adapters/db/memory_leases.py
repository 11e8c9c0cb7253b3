"""The leases' twin in memory, for tests of the use cases and for the simulation."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, TypeVar

import attrs
import trio

from marketflow.app.ports import (
    FORGOTTEN,
    ClusterSight,
    Node,
    SeenLease,
    SeenNode,
    StoreAway,
    Term,
    WantedMode,
)
from marketflow.domain.modes import Mode

T = TypeVar("T")


@attrs.frozen
class LeaseRow:
    """The last lease of an exchange."""

    term: Term
    node: str
    boot: str
    taken: float
    """Seconds of the table's clock, as all times of rows."""
    expires: float
    released: bool = False


class LeaseTable:
    """What the database holds, for all nodes. Its clock is Trio's, and can be stepped."""

    def __init__(self) -> None:
        self.leases: dict[str, LeaseRow] = {}
        self.nodes: dict[str, tuple[Node, float]] = {}
        """By name, and when each was last heard of."""
        self.wanted: WantedMode | None = None
        self.stepped = 0.0
        """By how many seconds its clock is ahead of Trio's."""

    def _now(self) -> float:
        return trio.current_time() + self.stepped

    def sight(self) -> ClusterSight:
        """Everything, as it is now."""
        now = self._now()
        return ClusterSight(
            now=round(now * 1_000),
            leases={
                exchange: SeenLease(
                    row.term, row.node, row.boot, _ms(row.expires - now), _ms(row.taken), row.released
                )
                for exchange, row in self.leases.items()
            },
            nodes={
                name: SeenNode(node, round((now - heard) * 1_000))
                for name, (node, heard) in self.nodes.items()
            },
            wanted=self.wanted,
        )

    def beat(self, node: Node, terms: Collection[Term], lasts: int) -> ClusterSight:
        """See the port."""
        now = self._now()
        known, heard = self.nodes.get(node.name, (node, now))
        if known.boot == node.boot or abs(now - heard) > lasts / 1_000:
            self.nodes[node.name] = node, now
        self.nodes = {
            name: (known, heard)
            for name, (known, heard) in self.nodes.items()
            if now - heard <= FORGOTTEN / 1_000
        }
        for term in terms:
            if self.has(term):
                self.leases[term.exchange] = attrs.evolve(
                    self.leases[term.exchange], expires=now + lasts / 1_000
                )
        return self.sight()

    def take(
        self, term: Term, node: Node, lasts: int, after: Term | None, generation: int | None = None
    ) -> bool:
        """See the port."""
        if generation is not None and (self.wanted is None or self.wanted.generation != generation):
            return False
        now, row = self._now(), self.leases.get(term.exchange)
        if (None if row is None else row.term) != after or (after and after.epoch >= term.epoch):
            return False
        mine = row is not None and (row.node, row.boot) == (node.name, node.boot)
        if row is not None and not (row.released or mine or _is_over(row.expires - now, lasts)):
            return False
        self.leases[term.exchange] = LeaseRow(term, node.name, node.boot, now, now + lasts / 1_000)
        return True

    def release(self, terms: Collection[Term]) -> None:
        """See the port."""
        for term in terms:
            if self.has(term):
                self.leases[term.exchange] = attrs.evolve(self.leases[term.exchange], released=True)

    def found(self, mode: Mode) -> None:
        """See the port."""
        if self.wanted is None:
            self.wanted = WantedMode(mode, 1)
        elif not self.nodes and self.wanted.mode != mode:
            self.wanted = WantedMode(mode, self.wanted.generation + 1)

    def switch(self, mode: Mode, generation: int) -> bool:
        """See the port."""
        if self.wanted is None or self.wanted.generation != generation:
            return False
        self.wanted = WantedMode(mode, generation + 1)
        return True

    def leave(self, node: Node) -> None:
        """See the port."""
        known, _ = self.nodes.get(node.name, (None, 0.0))
        if known is not None and known.boot == node.boot:
            del self.nodes[node.name]

    def has(self, term: Term) -> bool:
        """Whether the term is the exchange's last one, and goes on, expired or not."""
        row = self.leases.get(term.exchange)
        return row is not None and row.term == term and not row.released


class MemoryLeases:
    """Fills the port Leases for one node."""

    def __init__(self, table: LeaseTable | None = None) -> None:
        """Nodes of one cluster share its table."""
        self.table: Final = LeaseTable() if table is None else table
        self.away = False
        """While it is set, every call fails."""

    async def look(self) -> ClusterSight:
        """See the port."""
        return await self._carry(self.table.sight)

    async def beat(self, node: Node, terms: Collection[Term], lasts: int) -> ClusterSight:
        """See the port."""
        return await self._carry(lambda: self.table.beat(node, terms, lasts))

    async def take(
        self, term: Term, node: Node, lasts: int, after: Term | None, generation: int | None = None
    ) -> bool:
        """See the port."""
        return await self._carry(lambda: self.table.take(term, node, lasts, after, generation))

    async def release(self, terms: Collection[Term]) -> None:
        """See the port."""
        await self._carry(lambda: self.table.release(terms))

    async def found(self, mode: Mode) -> None:
        """See the port."""
        await self._carry(lambda: self.table.found(mode))

    async def switch(self, mode: Mode, generation: int) -> bool:
        """See the port."""
        return await self._carry(lambda: self.table.switch(mode, generation))

    async def leave(self, node: Node) -> None:
        """See the port."""
        await self._carry(lambda: self.table.leave(node))

    async def _carry(self, request: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise StoreAway("switched off")
        return request()


def _is_over(left: float, lasts: int) -> bool:
    """Whether a lease has `left` seconds that is over, or that was renewed before the clock stepped back."""
    return not 0 <= left <= lasts / 1_000


def _ms(seconds: float) -> int:
    return round(seconds * 1_000)
