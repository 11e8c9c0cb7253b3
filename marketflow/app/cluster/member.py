"""A node's part in its cluster: it says that it lives, renews leases, takes exchanges, gives them back.

```
 Member.run
  ├─ beating                 ends when all that follows has ended: leases are renewed to the last
  └─ having, per exchange    takes the lease, runs the tenure, gives the lease back; ends with the stop, or
                             when the exchange is lost, or moved
```
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Final, Protocol

import attrs
import structlog
import trio

from marketflow.app.cluster.balance import Balance
from marketflow.app.cluster.hold import Hold
from marketflow.app.ports import NEVER, ClusterSight, Entropy, Leases, Node, StoreAway, Term

log = structlog.get_logger()

LEAVE_SECONDS: Final = 1.0
"""How long it may take to give back a lease, or to leave the cluster."""


@attrs.frozen
class Times:
    """The times of a cluster (seconds)."""

    lasts: float = 3.0
    """How long a lease is good after it was taken or renewed."""
    renew: float = 1.0
    """How often it is renewed."""
    scan: float = 0.25
    """How often the leases are looked at."""
    settle: float = 30.0
    """How long nothing must have changed before an exchange is moved."""


class Tenure(Protocol):
    """Has an exchange: feeds it into a share of its own."""

    async def __call__(self, hold: Hold) -> int:
        """Return when the exchange was lost, or, once it is to be given back, all is stored.

        Returns the epoch of a later term that was met in the window; `NEVER` if none was.
        """
        ...


class Member:
    """Keeps this node in its cluster."""

    def __init__(
        self,
        node: Node,
        exchanges: Collection[str],
        *,
        leases: Leases,
        tenure: Tenure,
        times: Times,
        elapsed: Callable[[], float],
        entropy: Entropy,
    ) -> None:
        """Makes a member that has no exchange yet.

        Args:
            node: as it tells of itself.
            exchanges: all of the cluster's.
            leases: the cluster's.
            tenure: what is done with an exchange as long as this node has it.
            times: the same on all nodes.
            elapsed: seconds of a clock that never steps, and goes on while the machine is suspended.
            entropy: for the ids of terms.
        """
        self.node = node
        self.holds: dict[str, Hold] = {}
        """What this node has, by exchange, and what it is just taking or giving back."""
        self.sight: ClusterSight | None = None
        """What the database last told of the cluster."""
        self._leases = leases
        self._tenure = tenure
        self._times = times
        self._elapsed = elapsed
        self._entropy = entropy
        self._balance = Balance(exchanges, lasts=times.lasts, settle=times.settle)
        self._met: dict[str, int] = {}
        """By exchange, the greatest epoch that was met in the window. A database may have forgotten it."""

    async def run(self, stopping: trio.Event) -> None:
        """Take part until `stopping` is set, and everything was given back."""
        async with trio.open_nursery() as beating:
            async with trio.open_nursery() as tenures:
                beating.start_soon(self._beat, tenures)
                await stopping.wait()
                self.node = attrs.evolve(self.node, leaving=True)
                for hold in self.holds.values():
                    hold.leaving.set()
            beating.cancel_scope.cancel()
        with trio.move_on_after(LEAVE_SECONDS):
            try:
                await self._leases.leave(self.node)
            except StoreAway as error:
                log.warning("the cluster was not told that this node leaves", error=str(error))

    async def _beat(self, tenures: trio.Nursery) -> None:
        renew_at = -math.inf
        while True:
            sent_at = self._elapsed()
            renews = sent_at >= renew_at
            try:
                sight = await self._renew() if renews else await self._leases.look()
            except StoreAway:
                self._balance.unanswered()
            else:
                self._looked(sight, sent_at, renewed=renews, tenures=tenures)
                if renews:
                    renew_at = sent_at + self._times.renew
            await trio.sleep(self._times.scan)

    async def _renew(self) -> ClusterSight:
        terms = [hold.term for hold in self.holds.values() if hold.begun]
        return await self._leases.beat(self.node, terms, self._lasts)

    def _looked(self, sight: ClusterSight, sent_at: float, *, renewed: bool, tenures: trio.Nursery) -> None:
        self.sight = sight
        for exchange, hold in self.holds.items():
            hold.seen(sight.leases.get(exchange), sent_at, self._times.lasts if renewed else None)
        moves = self._balance.looked(sight, self._elapsed(), self.node, self.holds)
        for exchange, after in moves.take.items():
            tenures.start_soon(self._have, exchange, after)
        if moves.give in self.holds:
            log.info("moving an exchange", exchange=moves.give)
            self.holds[moves.give].leaving.set()

    async def _have(self, exchange: str, after: Term | None) -> None:
        """Take an exchange, have it until it is lost or to be given back, and give it back."""
        epoch = 1 + max(NEVER if after is None else after.epoch, self._met.get(exchange, NEVER))
        hold = Hold(Term(exchange, epoch, f"{self._entropy.getrandbits(32):08x}"), self._elapsed)
        self.holds[exchange] = hold
        try:
            if await self._take(hold, after):
                self._met[exchange] = await self._tenure(hold)
                if hold.leaving.is_set():
                    await self._give_back(hold)
        finally:
            del self.holds[exchange]

    async def _take(self, hold: Hold, after: Term | None) -> bool:
        sent_at = self._elapsed()
        try:
            if not await self._leases.take(hold.term, self.node, self._lasts, after):
                return False
        except StoreAway:
            return False  # A later look tells whether it was taken.
        hold.taken(sent_at, self._times.lasts)
        log.info("exchange taken", exchange=hold.term.exchange, epoch=hold.term.epoch, term=hold.term.id)
        return True

    async def _give_back(self, hold: Hold) -> None:
        with trio.move_on_after(LEAVE_SECONDS):
            try:
                await self._leases.release([hold.term])
            except StoreAway as error:
                log.warning("exchange not given back", exchange=hold.term.exchange, error=str(error))
            else:
                log.info("exchange given back", exchange=hold.term.exchange, epoch=hold.term.epoch)

    @property
    def _lasts(self) -> int:
        """How long a lease is good (ms)."""
        return round(self._times.lasts * 1_000)
