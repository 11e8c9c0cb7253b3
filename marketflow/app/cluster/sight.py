"""What a node has seen last of its cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Collection
from typing import Final, Literal, TypeVar, get_args

import structlog
import trio

from marketflow.app.instruments.stores import StoreState
from marketflow.app.interface import ClusterState, NodeState, Ownership
from marketflow.app.ports import NEVER, Clock, ClusterSight, Leases, Node, SeenLease, StoreAway, Term

T = TypeVar("T")
Reason = Literal["first", "given_back", "expired", "own"]
"""Why an exchange could be taken: no node ever had it; its node has given it back; its lease had expired; or
it was our own lease, of which we did not know, or which we had lost."""
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)

WRONG_CLOCK: Final = 500
"""By how much (ms) our clock may differ from the database's before health is degraded."""
UNFIT_CLOCK: Final = 2_000
"""Beyond this (ms) the node takes no exchange: too many updates would count as late, or as of the future."""

log = structlog.get_logger()


class LastSight:
    """Remembers the last look at the leases, for health."""

    def __init__(self, clock: Clock) -> None:
        """`clock` is the wall clock."""
        self._clock = clock
        self._sight: ClusterSight | None = None
        self._looked_at = 0.0
        """Seconds of Trio's clock."""
        self._since: dict[Term, int] = {}
        """When each present term was first seen (Unix ms)."""
        self.takeovers: Final = Counter[Reason](dict.fromkeys(REASONS, 0))
        """How often this node has taken an exchange."""
        self.offset: int | None = None
        """How far (ms) the database's clock is ahead of ours, at least; None: not measured yet."""

    def looked(self, sight: ClusterSight) -> None:
        """The leases were looked at just now."""
        self._sight, self._looked_at = sight, trio.current_time()
        terms = [lease.term for lease in sight.leases.values()]
        now = self._clock.now()
        self._since = {term: self._since.get(term, now) for term in terms}

    def time(self) -> int:
        """Our clock (Unix ms)."""
        return self._clock.now()

    def compare_clocks(self, theirs: int, sent_at: int) -> None:
        """The database has told its time (Unix ms) in the answer to a question that was sent at `sent_at`.

        It read its clock at any time since then. So a slow answer never looks like a wrong clock.
        """
        offset = theirs - min(max(theirs, sent_at), self._clock.now())
        was_right, self.offset = self.clock_is_right, offset
        if was_right and not self.clock_is_right:
            log.warning("clock differs from the database's", seconds=offset / 1_000)

    @property
    def clock_is_right(self) -> bool:
        """Whether our clock agrees with the database's, as far as we know."""
        return abs(self.offset or 0) <= WRONG_CLOCK

    def may_take(self) -> bool:
        """Whether our clock is good enough to take exchanges."""
        return abs(self.offset or 0) <= UNFIT_CLOCK

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
        return Ownership(self.owner_of(exchange), lease.term.epoch, self._since.get(lease.term))


class WatchedLeases:
    """Fills the port Leases: passes calls on, and notes what was seen, and whether the database answers."""

    def __init__(self, leases: Leases, sight: LastSight, state: StoreState) -> None:
        self._leases = leases
        self._sight = sight
        self._state = state

    async def look(self) -> ClusterSight:
        """See the port."""
        return self._seen(await self._noted(self._leases.look()))

    async def beat(self, node: Node, terms: Collection[Term], lasts: int) -> ClusterSight:
        """See the port."""
        sent_at = self._sight.time()
        sight = self._seen(await self._noted(self._leases.beat(node, terms, lasts)))
        self._sight.compare_clocks(sight.now, sent_at)
        return sight

    async def take(self, term: Term, node: Node, lasts: int, after: Term | None) -> bool:
        """See the port."""
        taken = await self._noted(self._leases.take(term, node, lasts, after))
        if taken:
            self._sight.took(term, node)
        return taken

    async def release(self, terms: Collection[Term]) -> None:
        """See the port."""
        await self._noted(self._leases.release(terms))

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

    def _seen(self, sight: ClusterSight) -> ClusterSight:
        self._sight.looked(sight)
        return sight
