"""The port for the leases of a cluster: which node has which exchange, and which nodes there are.

They are in the database, since only there can a lease be checked in the same transaction as a row is written.
Times are those of the database's clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, Protocol

import attrs

from marketflow.domain.modes import Mode

NEVER: Final = 0
"""The epoch of an exchange that no node has ever had."""
FORGOTTEN: Final = 86_400_000
"""A node that was not heard of for so long (ms) is forgotten."""


@attrs.frozen(order=True)
class Term:
    """The time for which a node has an exchange, from taking it to losing it.

    In a cluster its id stands where that of a boot stands on a single machine: in the bars' fields, in the
    members and in the marker.
    """

    exchange: str
    epoch: int
    """It grows from term to term of an exchange, also after the database has forgotten some."""
    id: str
    """Unique, so that two terms differ even if a database that has forgotten gives the same epoch twice."""


@attrs.frozen
class Node:
    """A node, as it tells of itself."""

    name: str
    boot: str
    """Two boots of one name never live at the same time: the second one does not start."""
    url: str
    """Where it answers questions."""
    role: str
    """`all`, `ingest` or `api`."""
    version: str
    leaving: bool = False
    """Whether it stops, and takes no exchange any more."""
    ready: tuple[str, ...] = ()
    """Exchanges that it has not, but has a record of: it could take them over without a loss."""

    @property
    def feeds(self) -> bool:
        """Whether it may have exchanges."""
        return self.role != "api"


@attrs.frozen
class SeenNode:
    """A node, as the database has it."""

    node: Node
    age: int
    """How long ago (ms) it was last heard of."""


@attrs.frozen
class WantedMode:
    """The mode that the cluster has, or changes to."""

    mode: Mode
    generation: int
    """It grows with each change."""


@attrs.frozen
class SeenLease:
    """The last lease of an exchange, as the database has it."""

    term: Term
    node: str
    """The name of the node that has it, or had it last."""
    boot: str
    left: int
    """For how long (ms) it is still good. Negative: it expired so long ago."""
    since: int
    """When the term began (Unix ms)."""
    released: bool = False
    """Whether its node has given it back. Another may take it at once."""


@attrs.frozen
class ClusterSight:
    """All leases and nodes at one moment."""

    now: int
    """The database's clock (Unix ms)."""
    leases: Mapping[str, SeenLease]
    """By exchange; those that were ever taken."""
    nodes: Mapping[str, SeenNode]
    """By name."""
    wanted: WantedMode | None = None
    """None: no node has set a mode yet."""


class Leases(Protocol):
    """The leases, in a store that may be away.

    Every awaited method raises StoreAway when the store failed or did not answer in time; all are bounded.
    With a new connection also StoreTaken, if a service that is no node of a cluster uses the database, and
    StoreUnfit.
    """

    async def look(self) -> ClusterSight:
        """Read everything. Writes nothing."""
        ...

    async def beat(self, node: Node, terms: Collection[Term], lasts: int) -> ClusterSight:
        """Say that the node lives, renew the leases of its terms for `lasts` ms, and read everything.

        A term that is not the exchange's last one any more, or was released, is not renewed; nor is it noted
        that the node lives, if another boot of its name was heard of within `lasts` ms. What is read tells
        both. It waits for no write of rows. Nodes not heard of for long are forgotten.
        """
        ...

    async def take(
        self, term: Term, node: Node, lasts: int, after: Term | None, generation: int | None = None
    ) -> bool:
        """Begin a term for `lasts` ms from now; returns whether it was begun.

        It is not, unless the last term of the exchange is still `after` (None: there was none), and has
        expired, was released, or is of this node and boot. The epoch must be greater than that of `after`.
        With a `generation` it is not either, unless the mode is still of that one: what a look has shown of
        the other mode's leases is true then.
        It waits for rows that are being written under the term before. After StoreAway it may have begun.
        """
        ...

    async def release(self, terms: Collection[Term]) -> None:
        """End these terms, those that are still the last ones of their exchanges."""
        ...

    async def found(self, mode: Mode) -> None:
        """Set the mode of a cluster that has no nodes, or no mode. One that has both keeps its own."""
        ...

    async def switch(self, mode: Mode, generation: int) -> bool:
        """Set the mode; returns whether that was done.

        It is not, unless the mode is still of that generation. It waits for takes under way. After StoreAway
        it may be done.
        """
        ...

    async def leave(self, node: Node) -> None:
        """Forget the node, but no other boot of its name."""
        ...
