"""A node's part in its cluster: it says that it lives, renews leases, takes exchanges, gives them back.

```
 Member.run
  ├─ beating                 waits until the node is admitted under its name; ends when all that follows has
  │                          ended: leases are renewed to the last
  └─ candidate, per exchange records the exchange if it is shared, takes the lease, runs the tenure, gives the
                             lease back; ends with the stop, or when the exchange is lost, moved, or another's
```
"""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Set as AbstractSet

import attrs
import structlog
import trio

from marketflow.app.cluster.admission import Admission
from marketflow.app.cluster.balance import Balance, Moves
from marketflow.app.cluster.candidates import Order
from marketflow.app.cluster.holdings import LEAVE_SECONDS, Holdings, Times
from marketflow.app.ports import ClusterSight, Leases, Node, StoreAway, StoreTaken
from marketflow.app.share.rivals import Wait
from marketflow.domain.modes import Mode

log = structlog.get_logger()


class Member:
    """Keeps this node in its cluster."""

    def __init__(
        self,
        node: Node,
        *,
        mode: Mode,
        balance: Balance,
        holdings: Holdings,
        leases: Leases,
        times: Times,
        elapsed: Callable[[], float],
        may_take: Callable[[], bool] = lambda: True,
    ) -> None:
        """Makes a member that has no exchange yet.

        Args:
            node: as it tells of itself.
            mode: the cluster's, if this is its first node.
            balance: decides what it takes and gives back.
            holdings: what it has.
            leases: the cluster's.
            times: those of the cluster.
            elapsed: seconds of a clock that never steps, and goes on while the machine is suspended.
            may_take: whether the node is fit for taking exchanges.
        """
        self.node = node
        self.holdings = holdings
        self._admission = Admission(node, mode)
        self._rival = Wait()
        """For a service that is no node."""
        self._balance = balance
        self._leases = leases
        self._times = times
        self._elapsed = elapsed
        self._may_take = may_take

    async def run(self, stopping: trio.Event) -> None:
        """Take part until `stopping` is set, and everything was given back.

        Raises:
            StoreTaken: another boot of this node's name lives, or a service that is no node of a cluster
                uses the database. What the node has is not given back.
            StoreUnfit: the database answers, and waiting does not make it fit for us.
        """
        async with trio.open_nursery() as beating:
            async with trio.open_nursery() as having:
                beating.start_soon(self._beat, having)
                await stopping.wait()
                self.node = attrs.evolve(self.node, leaving=True)
                self.holdings.stop()
                self.holdings.candidates.record((), having)
                with trio.move_on_after(self._times.handover):
                    await self.holdings.given()
                for exchange in self.holdings.holds:
                    self.holdings.give(exchange)
            beating.cancel_scope.cancel()
        with trio.move_on_after(LEAVE_SECONDS):
            try:
                await self._leases.leave(self.node)
            except (StoreAway, StoreTaken) as error:
                log.warning("cluster not left in order", error=str(error))

    async def _beat(self, having: trio.Nursery) -> None:
        renew_at, told = -math.inf, self.node
        while True:
            sent_at, held = self._elapsed(), set(self.holdings.holds)
            node = self.node = attrs.evolve(self.node, ready=self.holdings.candidates.ready)
            renews = sent_at >= renew_at or not self._admission.admitted or node != told
            try:
                if not self._admission.has_mode:
                    await self._leases.found(self._admission.mode)
                sight = await self._renew(node) if renews else await self._leases.look()
            except StoreAway:
                self._balance.unanswered()
                self._rival.interrupt()
            except StoreTaken:
                # A service that is no node uses the database. At a start it may just be ending.
                if self._rival.another(self._elapsed()):
                    raise
                self._balance.unanswered()
            else:
                self._rival.end()
                if renews:
                    renew_at, told = sent_at + self._times.renew, node
                self.holdings.seen(sight, sent_at, renewed=renews)
                self._admission.looked(sight)
                if node.leaving == self.node.leaving:  # Otherwise the others do not know yet that we leave.
                    self._act(self._moves(sight, node, held), having)
            await trio.sleep(self._times.scan)

    def _moves(self, sight: ClusterSight, node: Node, held: AbstractSet[str]) -> Moves:
        """What to do after a look. `held`: what the node had when it asked.

        What it has given back since then may be seen as its own still, and is not to be taken again.
        """
        has = self.holdings
        return self._balance.looked(sight, self._elapsed(), node, held | has.holds.keys(), has.immovable)

    async def _renew(self, node: Node) -> ClusterSight:
        return await self._leases.beat(node, self.holdings.terms, self._times.lasts_ms)

    def _act(self, moves: Moves, having: trio.Nursery) -> None:
        if self._admission.admitted and self._may_take():
            self._take(moves, having)
        else:
            # Other nodes give exchanges to a node that is ready for them.
            self.holdings.candidates.record((), having)
        for exchange in moves.give:
            self.holdings.give(exchange, closes=moves.closes)

    def _take(self, moves: Moves, having: trio.Nursery) -> None:
        candidates = self.holdings.candidates
        candidates.record(moves.record, having)
        for exchanges, seals in ((moves.take, False), (moves.seal, True)):
            for exchange, after in exchanges.items():
                order = Order(after, self.node, moves.generation, seals)
                candidates.take(exchange, order, having)
