"""What a node has seen last of its cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Collection, Mapping
from typing import Final, Literal, TypeVar, get_args

import attrs
import trio

from marketflow.app.cluster.clock_offset import ClockOffset
from marketflow.app.cluster.mirror import Mirror
from marketflow.app.instruments.stores import StoreState
from marketflow.app.interface import ClusterState, NodeState, Ownership
from marketflow.app.ports import NEVER, ClusterSight, Leases, Node, SeenLease, StoreAway, Term
from marketflow.domain.modes import Mode

T = TypeVar("T")
Reason = Literal["first", "given_back", "expired", "own"]
"""Why an exchange could be taken: no node ever had it; its node has given it back; its lease had expired; or
it was our own lease, of which we did not know, or which we had lost."""
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)


class _Looks:
    """Hands the outcome of each look to those who wait for it."""

    def __init__(self) -> None:
        self._ended = trio.Event()
        self._outcome: ClusterSight | StoreAway | None = None

    def end(self, outcome: ClusterSight | StoreAway) -> None:
        """A look has ended."""
        self._outcome = outcome
        self._ended.set()
        self._ended = trio.Event()

    async def next(self) -> ClusterSight:
        """Wait until a look ends.

        Raises:
            StoreAway: it has failed.
        """
        await self._ended.wait()
        if isinstance(self._outcome, ClusterSight):
            return self._outcome
        raise StoreAway(str(self._outcome))


class LastSight:
    """Remembers the last look at the leases, for health and the mode."""

    def __init__(self) -> None:
        self._sight: ClusterSight | None = None
        self._looked_at = 0.0
        """Seconds of Trio's clock."""
        self._looks = _Looks()
        self.takeovers: Final = Counter[Reason](dict.fromkeys(REASONS, 0))
        """How often this node has taken an exchange."""

    @property
    def last(self) -> ClusterSight | None:
        """What was seen last; None before the first look."""
        return self._sight

    def looked(self, sight: ClusterSight) -> None:
        """The leases were looked at just now."""
        self._sight, self._looked_at = sight, trio.current_time()
        self._looks.end(sight)

    def unanswered(self, error: StoreAway) -> None:
        """A look has failed."""
        self._looks.end(error)

    async def next_look(self) -> ClusterSight:
        """Wait for a look that begins after this call; returns what it has seen.

        Raises:
            StoreAway: it has failed.
        """
        await self._looks.next()  # This one may have begun before.
        return await self._looks.next()

    def took(self, term: Term, node: Node) -> None:
        """This node has taken an exchange."""
        self.takeovers[self._reason(term.exchange, node)] += 1

    def _reason(self, exchange: str, node: Node) -> Reason:
        lease = None if self._sight is None else self._sight.leases.get(exchange)
        if lease is None:
            return "first"
        if lease.released:
            return "given_back"
        return "own" if (lease.node, lease.boot) == (node.name, node.boot) else "expired"

    def epoch_of(self, exchange: str) -> int:
        """The epoch of the last term of an exchange."""
        lease = None if self._sight is None else self._sight.leases.get(exchange)
        return NEVER if lease is None else lease.term.epoch

    def owner_of(self, exchange: str) -> str | None:
        """The name of the node that has the exchange, as far as the last look can tell."""
        lease = None if self._sight is None else self._sight.leases.get(exchange)
        return None if lease is None or not self._is_held(lease) else lease.node

    def _is_held(self, lease: SeenLease) -> bool:
        # As long as the database does not answer, leases do not pass to others.
        return not lease.released and lease.left > 0

    def state(self, exchanges: Collection[str]) -> ClusterState:
        """All nodes, and who has these exchanges."""
        if self._sight is None:
            return ClusterState({}, {exchange: Ownership(None, NEVER, None) for exchange in exchanges})
        passed = trio.current_time() - self._looked_at
        return ClusterState(
            nodes={
                name: NodeState(
                    seen.node.role, seen.node.version, seen.node.url, round(seen.age / 1_000 + passed, 3)
                )
                for name, seen in sorted(self._sight.nodes.items())
            },
            exchanges={exchange: self._ownership(exchange, self._sight) for exchange in exchanges},
        )

    def _ownership(self, exchange: str, sight: ClusterSight) -> Ownership:
        lease = sight.leases.get(exchange)
        if lease is None:
            return Ownership(None, NEVER, None)
        return Ownership(self.owner_of(exchange), lease.term.epoch, lease.since)


@attrs.frozen
class SeenCluster:
    """What a node sees of the others: who has which exchange, and what comes from it."""

    sight: LastSight
    offset: ClockOffset
    mirrors: Mapping[str, Mirror]
    """By exchange."""

    @property
    def clock_is_right(self) -> bool:
        """Whether our clock agrees with the database's."""
        return self.offset.is_right

    def owner_of(self, exchange: str) -> str | None:
        """The name of the node that has the exchange, as far as the last look can tell."""
        return self.sight.owner_of(exchange)

    def newest(self, exchange: str) -> int:
        """The greatest timestamp (ms) that was seen of the exchange; 0: none."""
        return self.mirrors[exchange].newest

    def state(self) -> ClusterState:
        """All nodes, and what they have."""
        return self.sight.state(self.mirrors)


class WatchedLeases:
    """Fills the port Leases: passes calls on, and notes what was seen, and whether the database answers."""

    def __init__(self, leases: Leases, sight: LastSight, offset: ClockOffset, state: StoreState) -> None:
        self._leases = leases
        self._offset = offset
        self._sight = sight
        self._state = state

    async def look(self) -> ClusterSight:
        """See the port."""
        return await self._seen(self._leases.look())

    async def beat(self, node: Node, terms: Collection[Term], lasts: int) -> ClusterSight:
        """See the port."""
        sent_at = self._offset.now()
        sight = await self._seen(self._leases.beat(node, terms, lasts))
        self._offset.compare(sight.now, sent_at)
        return sight

    async def take(
        self, term: Term, node: Node, lasts: int, after: Term | None, generation: int | None = None
    ) -> bool:
        """See the port."""
        taken = await self._noted(self._leases.take(term, node, lasts, after, generation))
        if taken:
            self._sight.took(term, node)
        return taken

    async def release(self, terms: Collection[Term]) -> None:
        """See the port."""
        await self._noted(self._leases.release(terms))

    async def found(self, mode: Mode) -> None:
        """See the port."""
        await self._noted(self._leases.found(mode))

    async def switch(self, mode: Mode, generation: int) -> bool:
        """See the port."""
        return await self._noted(self._leases.switch(mode, generation))

    async def leave(self, node: Node) -> None:
        """See the port."""
        await self._noted(self._leases.leave(node))

    async def _noted(self, call: Awaitable[T]) -> T:
        try:
            found = await call
        except StoreAway as error:
            self._state.failed(error)
            raise
        self._state.answered()
        return found

    async def _seen(self, look: Awaitable[ClusterSight]) -> ClusterSight:
        try:
            sight = await self._noted(look)
        except StoreAway as error:
            self._sight.unanswered(error)
            raise
        self._sight.looked(sight)
        return sight
