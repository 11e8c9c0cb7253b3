"""The lease of a share on its two stores: on each, one boot writes at a time.

Each store tells independently who has it: the database by a lock (`database_lease`), the window by a key with
an expiry (`window_lease`). Either may be away, and then the other alone has to tell. So the rule is the same
for both, and `Lease` is the one place for it:

```
                        it is free                                it may be lost, and is asked for again
 start ─> asking ──────────────────────────────────> leased <──────────────────────────────────┐
            │  │        it is away, no other boot was seen                   it answers        │
            │  └─────────────────────────────────> serving without it ─────────────────────────┤
            │ another boot has it                                        another boot has it   │
            v              it is free                                                          v
         waiting ──────────────────────> leased                                      waiting, while we serve
            │                                                                                  │
            └── LEASE_PATIENCE is over, even if it is away meanwhile ──> taken <───────────────┘ patience over
```
A start that has seen another boot does not serve, even if the store goes away: both would serve until it is
back. A start waits for both stores together no longer than `LEASE_PATIENCE`. A boot that serves already
writes nothing to a store whose lease it does not have.
"""

from __future__ import annotations

import math
from typing import Final, Protocol, cast

import trio

from marketflow.app.instruments.stores import StoreState
from marketflow.app.ports import StoreAway
from marketflow.app.share.rivals import LEASE_PATIENCE, HeldByAnother

LOOK_SECONDS: Final = 0.1
"""How often (seconds) a start that waits for a lease asks for it."""


class StoreLease(Protocol):
    """The lease of one store."""

    @property
    def state(self) -> StoreState:
        """Whether the store is away."""
        ...

    @property
    def another(self) -> bool:
        """Whether another boot has it for sure."""
        ...

    @property
    def leased_until(self) -> float:
        """When it was ours for sure the last time (Trio's clock); -inf if it never was."""
        ...

    async def ensure(self) -> None:
        """Return once we have it: at once, or quickly, if we have it already.

        Raises:
            HeldByAnother: another boot has it, or may have it. Ask again.
            StoreAway: the store is away.
            StoreTaken: another boot has it, and we have waited long enough.
            StoreUnfit: the store answers, and waiting does not make it fit for us.
        """
        ...


class Lease:
    """The leases of both stores, taken together."""

    def __init__(self, *, database: StoreLease, window: StoreLease) -> None:
        self.database = database
        self.window = window

    @property
    def leased_until(self) -> float:
        """With another boot on a store, when we had that store last (Trio's clock); inf without one."""
        leases = (self.database, self.window)
        return min((lease.leased_until for lease in leases if lease.another), default=math.inf)

    async def take(self) -> None:
        """At a start: take both, waiting for another boot to end.

        A store that is away is not waited for: its lease is taken once it answers.

        Raises:
            StoreTaken: another boot has not ended in `LEASE_PATIENCE`.
            StoreUnfit: a store answers, and waiting does not make it fit for us.
        """
        deadline = trio.current_time() + LEASE_PATIENCE
        if await self._take(self.database, deadline):
            self.database.state.answered()
        # Last, since nothing renews it until the flusher runs. That also tells whether the window is up.
        await self._take(self.window, deadline)

    async def _take(self, lease: StoreLease, deadline: float) -> bool:
        """Returns whether we have it; not, if the store is away."""
        seen: HeldByAnother | None = None
        with trio.CancelScope() as waiting:
            while True:
                try:
                    await lease.ensure()
                except HeldByAnother as error:
                    if seen is None:
                        lease.state.failed(error)
                    seen, waiting.deadline = error, deadline
                except StoreAway:
                    # Another boot that was seen may still be alive.
                    if seen is None:
                        return False
                else:
                    return True
                await trio.sleep(LOOK_SECONDS)
        # Only another boot that was seen sets the deadline.
        raise cast("HeldByAnother", seen).taken
