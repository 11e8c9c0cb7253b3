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
For how long a lease was not renewed, a node measures by its own clock (`marketflow.app.cluster.renewals`). A
lease that has expired is not free at once. If the database was away, nobody could renew. So a taker waits
until the database has answered it without a break for two lease times. In that time every owner that lives
renews. No node leads: who should have what follows from the names (`marketflow.domain.placement`). If the
node that should take an exchange does not, the next one does so a lease time later.

A shared exchange, whose connections all carry the same updates, is given back once the node that should have
it has a record of it (`marketflow.app.cluster.record`), or after some time in any case. Which node that is,
all nodes know from the same look.

An exchange is not given back while its window is away: what the window lacks, the next owner would lack in
its rows. A node that stops waits for the window only for some time, see `marketflow.app.cluster.member`.

Exchanges of the two modes are never had at the same time. Those of the mode that is not wanted are given back
at once. One that its node has not given back is taken when it is free, only to seal it, and given back. Until
all are released none of the wanted mode is taken. A take says of which generation the mode was at the look:
so no lease of the other mode can have begun since.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import attrs

from marketflow.app.cluster.handovers import Handovers, Placement
from marketflow.app.cluster.modes import unreleased
from marketflow.app.cluster.renewals import Renewals
from marketflow.app.ports import ClusterSight, Node, SeenLease, Term
from marketflow.domain.modes import OTHER, Mode
from marketflow.domain.placement import placed, ranked

UNBROKEN: Final = 2
"""For how many lease times the database must have answered a taker."""


@attrs.frozen
class Moves:
    """What a node is to do after a look."""

    take: Mapping[str, Term | None] = attrs.field(factory=dict)
    """Exchanges to take, each with its last term; None: it has had none."""
    seal: Mapping[str, Term | None] = attrs.field(factory=dict)
    """The same, but to be given back at once: exchanges of the mode that is not wanted."""
    give: tuple[str, ...] = ()
    """Exchanges to give back: all of the mode that is not wanted, or one that another node should have."""
    closes: bool = False
    """Whether no node takes them next, since the mode is being switched."""
    record: frozenset[str] = frozenset()
    """Exchanges of which it is to have a record, since it may soon take them over."""
    generation: int | None = None
    """Of the mode for which exchanges are taken."""


class _Answers:
    """What the database's answers tell over some time. Times are seconds of one clock."""

    def __init__(self) -> None:
        self.leases, self.nodes = Renewals(), Renewals()
        self._since = math.inf
        self._last = -math.inf

    def note(self, sight: ClusterSight, now: float, lasts: float) -> None:
        """It has answered. `lasts`: how long a lease is good."""
        leases, nodes = sight.leases.items(), sight.nodes.items()
        self.leases.look({name: (each.term, sight.now + each.left) for name, each in leases}, now)
        self.nodes.look({name: (each.node.boot, sight.now - each.age) for name, each in nodes}, now)
        # After a standstill of ours we do not know whether the database was away meanwhile.
        if self._since == math.inf or now - self._last > lasts / 2:
            self._since = now
        self._last = now

    def break_off(self) -> None:
        """It has not answered."""
        self._since = math.inf

    def unbroken(self, now: float) -> float:
        """For how long it has answered without a break; negative: not at all."""
        return now - self._since


class Balance:
    """Decides for one node, from look to look. No I/O. Times are seconds of one clock."""

    def __init__(
        self,
        exchanges: Mapping[str, Mode],
        *,
        lasts: float,
        calm: float,
        shared: Collection[str] = (),
        standby: bool = False,
    ) -> None:
        """Makes one for a node that may have these exchanges.

        Args:
            exchanges: all of the cluster's, each with its mode.
            lasts: how long a lease is good.
            calm: how long nothing must have changed before an exchange is moved to the node that should have
                it.
            shared: exchanges whose connections all carry the same updates.
            standby: whether these are always recorded by the node that is next to have them.
        """
        self._exchanges = dict(sorted(exchanges.items()))
        self._lasts = lasts
        self._calm_for = calm
        self._handovers = Handovers(shared, lasts=lasts, standby=standby)
        self._answers = _Answers()
        self._free_since: dict[str, float] = {}
        self._seen: tuple[object, float] = None, math.inf
        """What was seen last of nodes and leases, and since when it is so."""

    def unanswered(self) -> None:
        """A look has failed."""
        self._answers.break_off()

    def looked(
        self,
        sight: ClusterSight,
        now: float,
        me: Node,
        held: Collection[str],
        immovable: Collection[str] = (),
    ) -> Moves:
        """Decide after a look.

        Args:
            sight: what was seen.
            now: when.
            me: this node.
            held: the exchanges that this node has, or is just taking or giving back.
            immovable: those of them that are not given back now, since their window is away. What it lacks,
                the next owner would lack in its rows.
        """
        self._answers.note(sight, now, self._lasts)
        if sight.wanted is None:
            return Moves()
        nodes, mode = self._living(sight, now, me), sight.wanted.mode
        others = unreleased(sight, self._exchanges, OTHER[mode])
        free = self._free(others or self._of(mode), sight, now, me, held)
        calm = self._is_calm(sight, nodes, now, mode)
        wanted, theirs = self._of(mode), self._of(OTHER[mode])
        placement = Placement.of(wanted, nodes)
        if me.name not in nodes:
            left = [exchange for exchange in held if not self._handovers.waits(exchange, sight, placement)]
            return Moves(give=_without(immovable, left) if me.leaving else ())
        moving = self._misplaced(sight, placement.places) if calm else None
        places_of_others = placed(theirs, nodes)

        def to_take(exchange: str) -> bool:
            place = places_of_others.get(exchange) or self._handovers.heir(exchange, sight, placement)
            patience = self._patience(exchange, me, place, nodes)
            return now - self._free_since[exchange] >= patience

        give = [exchange for exchange in held if self._exchanges[exchange] != mode]
        closes = bool(give)
        goes = self._handovers.moves(moving, sight, placement, now)
        if not give and goes and moving is not None and sight.leases[moving].node == me.name:
            give = [moving]
        return Moves(
            take={} if others else _ripe(free, wanted, to_take),
            seal=_ripe(free, others, to_take),
            give=_without(immovable, give),
            closes=closes,
            record=frozenset() if others else self._handovers.to_record(sight, me, held, placement, moving),
            generation=sight.wanted.generation,
        )

    def _of(self, mode: Mode) -> list[str]:
        return [exchange for exchange, its_mode in self._exchanges.items() if its_mode == mode]

    def _free(
        self, exchanges: Collection[str], sight: ClusterSight, now: float, me: Node, held: Collection[str]
    ) -> Mapping[str, Term | None]:
        """Of the exchanges that may be taken now the free ones, each with its last term."""
        free = {
            exchange: None if lease is None else lease.term
            for exchange in exchanges
            if exchange not in held and self._is_free(exchange, lease := sight.leases.get(exchange), me, now)
        }
        self._free_since = {exchange: self._free_since.get(exchange, now) for exchange in free}
        return free

    def _living(self, sight: ClusterSight, now: float, me: Node) -> Sequence[str]:
        """The nodes that may have exchanges. We live, even if the database has not heard of us yet."""
        others = (
            seen.node
            for name, seen in sight.nodes.items()
            if seen.age < self._lasts * 1_000
            and self._answers.nodes.idle(name, now) < self._lasts
            and name != me.name
        )
        return sorted(node.name for node in (me, *others) if node.feeds and not node.leaving)

    def _is_free(self, exchange: str, lease: SeenLease | None, me: Node, now: float) -> bool:
        if lease is None or lease.released:
            return True
        if (lease.node, lease.boot) == (me.name, me.boot):
            return True  # We took it, and the answer was lost; or we have just lost it.
        if self._answers.leases.idle(exchange, now) < self._lasts:
            return False
        return self._answers.unbroken(now) >= UNBROKEN * self._lasts

    def _patience(self, exchange: str, me: Node, place: str | None, nodes: Sequence[str]) -> float:
        """For how long an exchange must be free before this node takes it. `place`: who should have it."""
        if place == me.name:
            return 0.0
        return (1 + ranked(exchange, nodes).index(me.name)) * self._lasts

    def _is_calm(self, sight: ClusterSight, nodes: Sequence[str], now: float, mode: Mode) -> bool:
        leases = [sight.leases.get(exchange) for exchange in self._of(mode)]
        held = [lease.term for lease in leases if lease and not lease.released and lease.left > 0]
        if (nodes, held) != self._seen[0]:
            self._seen = (nodes, held), now
        return len(held) == len(leases) and now - self._seen[1] >= self._calm_for

    def _misplaced(self, sight: ClusterSight, wanted: Mapping[str, str]) -> str | None:
        """The exchange that is moved next in the cluster."""
        return next((name for name in sorted(wanted) if sight.leases[name].node != wanted[name]), None)


def _without(some: Collection[str], exchanges: Collection[str]) -> tuple[str, ...]:
    return tuple(exchange for exchange in exchanges if exchange not in some)


def _ripe(
    free: Mapping[str, Term | None], exchanges: Collection[str], ripe: Callable[[str], bool]
) -> Mapping[str, Term | None]:
    """Of the free exchanges those among these that are ripe."""
    return {exchange: last for exchange, last in free.items() if exchange in exchanges and ripe(exchange)}
