"""The lease of the database: PostgreSQL's lock, which belongs to the connection that writes rows."""

from __future__ import annotations

import math
from typing import Final

import structlog
import trio

from marketflow.app.instruments.stores import StoreState
from marketflow.app.ports import AggregateStore, Fenced, StoreAway, StoreTaken, StoreUnfit
from marketflow.app.share.earlier_boots import EarlierBoots
from marketflow.app.share.rivals import LEASE_PATIENCE, HeldByAnother, Wait

log = structlog.get_logger()

LOST_PATIENCE: Final = 1.0
"""How long (seconds) to wait for the lock that was ours, and another boot has now. That boot ends soon, or we
must: two services count every update twice."""


class DatabaseLease:
    """Holds the lock for this boot. The history of earlier boots learns of it: rows can then check it."""

    def __init__(self, store: AggregateStore, *, state: StoreState, earlier: EarlierBoots) -> None:
        self.state = state
        self.number = 0
        """It changes each time the lock is taken again; 0 before that."""
        self.held = False
        """Whether the lock was ours at the last answer. It stays so while we ask again."""
        self.leased_until = -math.inf
        """When it was ours the last time (Trio's clock); -inf if it never was."""
        self._store = store
        self._earlier = earlier
        self._wait = Wait()

    @property
    def another(self) -> bool:
        """Whether another boot had it at the last answer. It may still have it while the database is away."""
        return self._wait.waiting

    async def ensure(self) -> None:
        """Return once we have the lock: quickly if we have it already.

        Raises:
            HeldByAnother: not yet.
            StoreAway: the database is away.
            StoreTaken: another boot has had it for too long. In a cluster: Fenced, at once.
        """
        try:
            number = await self._store.lease()
        except StoreAway as error:
            self.held = False
            self._wait.interrupt()
            self.failed(error)
            raise
        except (StoreUnfit, Fenced):
            self.held = False
            raise
        except StoreTaken as taken:
            self.held = False
            patience = LOST_PATIENCE if self.number else LEASE_PATIENCE
            if not self._wait.counting:
                log.warning("lease on PostgreSQL awaited", seconds=patience)
            if self._wait.another(trio.current_time(), patience):
                raise
            held = HeldByAnother("another marketflow holds the database, waiting until it ends", taken)
            self.state.failed(held)
            self._earlier.another_has_database()
            raise held from None
        self._wait.end()
        self.held, self.leased_until = True, trio.current_time()
        renewed, self.number = number != self.number, number
        self._earlier.database_ours(renewed=renewed)

    def failed(self, error: StoreAway) -> None:
        """The database has not done what was asked, so rows cannot be compared with bars."""
        self.state.failed(error)
        self._earlier.database_away()
