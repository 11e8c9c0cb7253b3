"""Which exchanges a node takes and gives back. Every node decides for itself, by what it sees of the leases.

```
                  taken                                   lost: another has taken it, or nobody knows of it
        free ──────────────> held by a node ─────────────────────────────────────────────────> free
                               │        ^                                                        ^
          two lease times have │        │ renewed, after an outage of the database               │
          passed since it was  v        │                                                        │
          renewed             expired ──┴────── the database has answered us so long ────────────┤
                               │                                                                 │
                               └────────────── it was given back ────────────────────────────────┘
```
A lease that has expired is not free at once. If the database was away, nobody could renew; so a taker waits
until the database has answered it without a break for two lease times. In that time every owner that lives
renews. No node leads: who should have what follows from the names (`marketflow.domain.placement`). If the
node that should take an exchange does not, the next one does so a lease time later.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import attrs

from marketflow.app.ports import ClusterSight, Node, SeenLease, Term
from marketflow.domain.placement import placed, ranked

UNBROKEN: Final = 2
"""For how many lease times the database must have answered a taker."""


@attrs.frozen
class Moves:
    """What a node is to do after a look."""

    take: Mapping[str, Term | None] = attrs.field(factory=dict)
    """Exchanges to take, each with its last term; None: it has had none."""
    give: Collection[str] = ()
    """Exchanges to give back: those of another mode, or one that another node should have."""


class Balance:
    """Decides for one node, from look to look. No I/O. Times are seconds of one clock."""

    def __init__(self, exchanges: Mapping[str, Collection[str]], *, lasts: float, calm: float) -> None:
        """Makes one for a node that may have these exchanges.

        Args:
            exchanges: all of the cluster's, by mode.
            lasts: how long a lease is good.
            calm: how long nothing must have changed before an exchange is moved to the node that should have
                it.
        """
        self._exchanges = exchanges
        self._lasts = lasts
        self._calm_for = calm
        self._answers_since = math.inf
        """Since when the database answers without a break."""
        self._last_answer = -math.inf
        self._free_since: dict[str, float] = {}
        self._seen: tuple[object, float] = None, math.inf
        """What was seen last of nodes and leases, and since when it is so."""

    def unanswered(self) -> None:
        """A look has failed."""
        self._answers_since = math.inf

    def looked(self, sight: ClusterSight, now: float, me: Node, held: Collection[str]) -> Moves:
        """Decide after a look. `held`: the exchanges that this node has, or is just taking or giving back."""
        self._note_answer(now)
        if sight.mode is None:
            return Moves()
        nodes = self._living(sight, me)
        wanted = sorted(self._exchanges[sight.mode])
        # Modes do not mix: as long as another one has exchanges, only these are taken, to be given back.
        open_to_all = self._of_other_modes(sight, wanted) or wanted
        free = {
            exchange: lease
            for exchange in open_to_all
            if exchange not in held and self._is_free(lease := sight.leases.get(exchange), me, now)
        }
        self._free_since = {exchange: self._free_since.get(exchange, now) for exchange in free}
        calm = self._is_calm(sight, nodes, wanted, now)
        if me.name not in nodes:
            return Moves()
        owners = placed(open_to_all, nodes)
        strange = tuple(exchange for exchange in held if exchange not in wanted)
        return Moves(
            take={
                exchange: None if lease is None else lease.term
                for exchange, lease in free.items()
                if now - self._free_since[exchange] >= self._patience(exchange, me, owners, nodes)
            },
            give=strange or (self._misplaced(sight, me, owners) if calm else ()),
        )

    def _of_other_modes(self, sight: ClusterSight, wanted: Collection[str]) -> list[str]:
        """Exchanges of other modes that were not given back. A node has them, dead or alive."""
        others = {exchange for each in self._exchanges.values() for exchange in each}.difference(wanted)
        leases = {exchange: sight.leases.get(exchange) for exchange in sorted(others)}
        return [exchange for exchange, lease in leases.items() if lease is not None and not lease.released]

    def _note_answer(self, now: float) -> None:
        # After a standstill of ours we do not know whether the database was away meanwhile.
        if self._answers_since == math.inf or now - self._last_answer > self._lasts / 2:
            self._answers_since = now
        self._last_answer = now

    def _living(self, sight: ClusterSight, me: Node) -> Sequence[str]:
        """The nodes that may have exchanges. We live, even if the database has not heard of us yet."""
        others = (
            seen.node
            for seen in sight.nodes.values()
            if seen.age < self._lasts * 1_000 and seen.node.name != me.name
        )
        return sorted(node.name for node in (me, *others) if node.feeds and not node.leaving)

    def _is_free(self, lease: SeenLease | None, me: Node, now: float) -> bool:
        if lease is None or lease.released:
            return True
        if (lease.node, lease.boot) == (me.name, me.boot):
            return True  # We took it, and the answer was lost; or we have just lost it.
        return lease.left < 0 and now - self._answers_since >= UNBROKEN * self._lasts

    def _patience(self, exchange: str, me: Node, owners: Mapping[str, str], nodes: Sequence[str]) -> float:
        """For how long an exchange must be free before this node takes it."""
        if owners[exchange] == me.name:
            return 0.0
        return (1 + ranked(exchange, nodes).index(me.name)) * self._lasts

    def _is_calm(
        self, sight: ClusterSight, nodes: Sequence[str], wanted: Collection[str], now: float
    ) -> bool:
        leases = [sight.leases.get(exchange) for exchange in wanted]
        held = [lease.term for lease in leases if lease and not lease.released and lease.left > 0]
        if (nodes, held) != self._seen[0]:
            self._seen = (nodes, held), now
        return len(held) == len(leases) and now - self._seen[1] >= self._calm_for

    def _misplaced(self, sight: ClusterSight, me: Node, owners: Mapping[str, str]) -> Sequence[str]:
        """The exchange that is moved next in the cluster, if it is ours to give."""
        first = next((name for name in sorted(owners) if sight.leases[name].node != owners[name]), None)
        return (first,) if first is not None and sight.leases[first].node == me.name else ()
