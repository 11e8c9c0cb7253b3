"""Which exchanges a node records, and which it still keeps since the next node is not ready.

Only shared exchanges are recorded: all their connections carry the same updates.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Final

import attrs

from marketflow.app.ports import ClusterSight, Node
from marketflow.domain.placement import placed, ranked


@attrs.frozen
class Placement:
    """Who should have what, by one look."""

    nodes: Collection[str]
    """Those that live and do not leave."""
    places: Mapping[str, str]
    """All exchanges of the mode, each with the node that should have it; empty without nodes."""

    @classmethod
    def of(cls, exchanges: Collection[str], nodes: Collection[str]) -> Placement:
        """That of these exchanges and nodes."""
        return cls(nodes, placed(exchanges, nodes))

    def owned(self, exchange: str, sight: ClusterSight) -> str | None:
        """The node that has the exchange, lives, and does not leave; None if there is none."""
        lease = sight.leases.get(exchange)
        if lease is None or lease.released or lease.left < 0 or lease.node not in self.nodes:
            return None
        seen = sight.nodes.get(lease.node)
        return lease.node if seen is None or seen.node.boot == lease.boot else None

    def without(self, owner: str) -> Placement:
        """If this node were not there."""
        return Placement.of(self.places.keys(), [node for node in self.nodes if node != owner])


MOVE_PATIENCE: Final = 2
"""For how many lease times an exchange is not moved since the node that should have it is not ready."""
HEARD: Final = 1 / 3
"""Of a lease time: for so long the word of a node that it is ready is believed. It may have died since."""


class Handovers:
    """Decides for one node, by what it sees of the leases. No I/O. Times are seconds of one clock."""

    def __init__(self, shared: Collection[str], *, lasts: float, standby: bool) -> None:
        """Makes one that has seen nothing.

        Args:
            shared: exchanges whose connections all carry the same updates.
            lasts: how long a lease is good.
            standby: whether there is always a record of each exchange, at the node that would take it if its
                owner died.
        """
        self._shared = frozenset(shared)
        self._patience = MOVE_PATIENCE * lasts
        self._heard_ms = HEARD * lasts * 1_000
        self._standby = standby
        self._moving: tuple[str | None, float] = None, math.inf
        """The exchange that is to be moved, and since when."""

    def heir(self, exchange: str, sight: ClusterSight, placement: Placement) -> str | None:
        """The node that is to have the exchange next, or has it and is to keep it; None without nodes.

        Without an owner it is a node that is ready, since it loses nothing, even if the last owner has been
        started again and should have it. Otherwise it is the one that should have it.
        """
        if not placement.owned(exchange, sight):
            ready = [name for name in placement.nodes if _is_ready(sight, name, exchange)]
            if ready:
                return ranked(exchange, ready)[0]
        return placement.places.get(exchange)

    def waits(self, exchange: str, sight: ClusterSight, placement: Placement) -> bool:
        """Whether a node is to have the exchange next, but is not ready, or was not heard of lately."""
        heir = self.heir(exchange, sight, placement)
        if exchange not in self._shared or heir is None:
            return False
        return not _is_ready(sight, heir, exchange) or sight.nodes[heir].age > self._heard_ms

    def moves(self, exchange: str | None, sight: ClusterSight, placement: Placement, now: float) -> bool:
        """Whether the exchange that is to be moved can go now."""
        if exchange != self._moving[0]:
            self._moving = exchange, now
        if exchange is None:
            return False
        return now - self._moving[1] >= self._patience or not self.waits(exchange, sight, placement)

    def to_record(
        self,
        sight: ClusterSight,
        me: Node,
        held: Collection[str],
        placement: Placement,
        moving: str | None,
    ) -> frozenset[str]:
        """Exchanges that this node should have and has not, or with a standby would have next.

        If that becomes another node, this one keeps its record until the other is ready.

        Args:
            sight: what was seen.
            me: this node.
            held: the exchanges that it has.
            placement: who should have what.
            moving: the exchange that is to be moved.
        """
        found = set()
        for exchange in placement.places:
            if exchange not in self._shared or exchange in held:
                continue
            owner = placement.owned(exchange, sight)
            if not owner or exchange == moving:
                heir = self.heir(exchange, sight, placement)
            elif self._standby:
                heir = placement.without(owner).places.get(exchange)
            else:
                continue
            if heir == me.name or (exchange in me.ready and heir and not _is_ready(sight, heir, exchange)):
                found.add(exchange)
        return frozenset(found)


def _is_ready(sight: ClusterSight, node: str, exchange: str) -> bool:
    return node in sight.nodes and exchange in sight.nodes[node].node.ready
