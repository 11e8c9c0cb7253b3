"""Which exchanges a node records, and which it still keeps since the next node is not ready.

Only shared exchanges are recorded: all their connections carry the same updates.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import attrs

from marketflow.app.ports import ClusterSight, Node
from marketflow.domain.placement import placed


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

    def without(self, owner: str) -> Placement:
        """If this node were not there."""
        return Placement.of(self.places.keys(), [node for node in self.nodes if node != owner])


class Handovers:
    """Decides for one node, by what it sees of the leases. No I/O. Times are seconds of one clock."""

    def __init__(self, shared: Collection[str], *, patience: float, standby: bool) -> None:
        """Makes one that has seen nothing.

        Args:
            shared: exchanges whose connections all carry the same updates.
            patience: how long a move waits at most for the node that should have the exchange.
            standby: whether there is always a record of each exchange, at the node that would take it if its
                owner died.
        """
        self._shared = frozenset(shared)
        self._patience = patience
        self._standby = standby
        self._moving: tuple[str | None, float] = None, math.inf
        """The exchange that is to be moved, and since when."""

    def waits(self, exchange: str, sight: ClusterSight, placement: Placement) -> bool:
        """Whether the node that should have the exchange lives, but is not ready for it."""
        heir = sight.nodes.get(placement.places.get(exchange, ""))
        return exchange in self._shared and heir is not None and exchange not in heir.node.ready

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

        `held`: those that it has. `moving`: the one that is to be moved.
        """
        found = set()
        for exchange in self._shared.intersection(placement.places).difference(held):
            lease = sight.leases.get(exchange)
            live = lease is not None and not lease.released and lease.node in placement.nodes
            if lease is None or not live or exchange == moving:
                heir = placement.places[exchange]
            elif self._standby:
                heir = placement.without(lease.node).places.get(exchange, "")
            else:
                continue
            if heir == me.name:
                found.add(exchange)
        return frozenset(found)
