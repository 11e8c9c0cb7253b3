"""What a node has seen last of its cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Collection
from typing import TypeVar

import trio

from marketflow.app.instruments.stores import StoreState
from marketflow.app.interface import ClusterState, NodeState, Ownership
from marketflow.app.ports import NEVER, ClusterSight, Leases, Node, SeenLease, StoreAway, Term
from marketflow.domain.modes import Mode

T = TypeVar("T")


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


class WatchedLeases:
    """Fills the port Leases: passes calls on, and notes what was seen, and whether the database answers."""

    def __init__(self, leases: Leases, sight: LastSight, state: StoreState) -> None:
        self._leases = leases
        self._sight = sight
        self._state = state

    async def look(self) -> ClusterSight:
        """See the port."""
        return await self._seen(self._leases.look())

    async def beat(self, node: Node, terms: Collection[Term], lasts: int) -> ClusterSight:
        """See the port."""
        return await self._seen(self._leases.beat(node, terms, lasts))

    async def take(
        self, term: Term, node: Node, lasts: int, after: Term | None, generation: int | None = None
    ) -> bool:
        """See the port."""
        return await self._noted(self._leases.take(term, node, lasts, after, generation))

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
