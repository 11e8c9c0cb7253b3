"""The exchanges that this node has: each is taken, had for a while, and lost or given back."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

import attrs
import structlog
import trio
from trio_util import wait_any

from marketflow.app.cluster.candidates import Candidacy, Candidates, Order, Tenures
from marketflow.app.cluster.hold import Ending, Hold
from marketflow.app.ports import NEVER, ClusterSight, Entropy, Leases, StoreAway, StoreTaken, Term

log = structlog.get_logger()

LEAVE_SECONDS: Final = 1.0
"""How long it may take to give back a lease, or to leave the cluster."""


@attrs.frozen
class Times:
    """The times of a cluster (seconds). They are the same on all nodes."""

    lasts: float = 3.0
    """How long a lease is good after it was taken or renewed."""
    renew: float = 1.0
    """How often it is renewed."""
    scan: float = 0.25
    """How often the leases are looked at."""
    calm: float = 30.0
    """How long nothing must have changed before an exchange is moved."""
    handover: float = 2.5
    """How long a node that stops waits at most for windows that are away, and for the nodes that are to have
    its exchanges."""

    @property
    def lasts_ms(self) -> int:
        """How long a lease is good, in ms."""
        return round(self.lasts * 1_000)


class Holdings:
    """What this node has, by exchange, and what it is just taking or giving back."""

    def __init__(
        self,
        leases: Leases,
        tenures: Tenures,
        *,
        times: Times,
        elapsed: Callable[[], float],
        entropy: Entropy,
    ) -> None:
        """Nothing yet.

        Args:
            leases: the cluster's.
            tenures: what is done with exchanges.
            times: those of the cluster.
            elapsed: seconds of a clock that never steps, and goes on while the machine is suspended.
            entropy: for the ids of terms.
        """
        self.holds: dict[str, Hold] = {}
        self._stopping = trio.Event()
        self._leases = leases
        self.candidates = Candidates(tenures, self._have)
        self._times = times
        self._elapsed = elapsed
        self._entropy = entropy
        self._met: dict[str, int] = {}
        """By exchange, the greatest epoch that was met in the window. A database may have forgotten it."""

    @property
    def terms(self) -> Collection[Term]:
        """Those that have begun."""
        return [hold.term for hold in self.holds.values() if hold.begun]

    def seen(self, sight: ClusterSight, sent_at: float, *, renewed: bool) -> None:
        """The database was asked at `sent_at`, and also to renew all leases if they were `renewed`."""
        for exchange, hold in self.holds.items():
            hold.seen(sight.leases.get(exchange), sent_at, self._times.lasts if renewed else None)

    @property
    def immovable(self) -> Collection[str]:
        """Exchanges of which another node would not find in the window all that was accepted."""
        return [exchange for exchange, hold in self.holds.items() if not hold.movable()]

    def stop(self) -> None:
        """The node is to end: nothing is taken any more, and a window that is away is not waited for."""
        self._stopping.set()

    async def given(self) -> None:
        """Wait until everything is to be given back, or lost."""
        for hold in list(self.holds.values()):
            await wait_any(hold.leaving.wait, hold.lost.wait)

    def give(self, exchange: str, *, closes: bool = False) -> None:
        """Give an exchange back, if it is here. `closes`: no node takes it next."""
        hold = self.holds.get(exchange)
        if hold is None:
            return
        hold.closes = hold.closes or closes  # The mode may be switched while it is given to another node.
        if not hold.leaving.is_set():
            log.info("exchange to be given back", exchange=exchange)
            hold.leaving.set()

    async def _have(self, exchange: str, order: Order, candidacy: Candidacy) -> bool:
        """Take an exchange, have it until it is lost or to be given back, and give it back.

        Returns False if it could not be taken.
        """
        if self._stopping.is_set():
            return False
        epoch = 1 + max(NEVER if order.after is None else order.after.epoch, self._met.get(exchange, NEVER))
        hold = Hold(
            Term(exchange, epoch, f"{self._entropy.getrandbits(32):08x}"), self._elapsed, self._stopping
        )
        if order.seals:
            hold.leaving.set()
        self.holds[exchange] = hold
        try:
            if not await self._take(hold, order):
                return False
            ended = await candidacy(hold)
            self._met[exchange] = max(ended.met, self._met.get(exchange, NEVER))
            if hold.leaving.is_set() and ended.how is not Ending.UNSEALED:
                await self._give_back(hold)
        finally:
            del self.holds[exchange]
        return True

    async def _take(self, hold: Hold, order: Order) -> bool:
        sent_at = self._elapsed()
        try:
            if not await self._leases.take(
                hold.term, order.node, self._times.lasts_ms, order.after, order.generation
            ):
                return False
        except (StoreAway, StoreTaken):
            return False  # A later look tells whether it was taken.
        hold.taken(sent_at, self._times.lasts)
        log.info("exchange taken", exchange=hold.term.exchange, epoch=hold.term.epoch, term=hold.term.id)
        return True

    async def _give_back(self, hold: Hold) -> None:
        with trio.move_on_after(LEAVE_SECONDS):
            try:
                await self._leases.release([hold.term])
            except (StoreAway, StoreTaken) as error:
                log.warning("exchange not given back", exchange=hold.term.exchange, error=str(error))
            else:
                log.info("exchange given back", exchange=hold.term.exchange, epoch=hold.term.epoch)
