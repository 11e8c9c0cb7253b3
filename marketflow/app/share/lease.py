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
back. A start waits for both stores together no longer than `LEASE_PATIENCE`. But a boot that ends gives back
the lock at once, and its key may remain until it expires: once the lock is ours, the start waits at least so
long for the key. A boot that serves already writes nothing to a store whose lease it does not have.
"""

from __future__ import annotations

import math
from typing import Final, Protocol

import trio

from marketflow.app.instruments.stores import StoreState
from marketflow.app.ports import StoreAway
from marketflow.app.share.rivals import LEASE_PATIENCE, MOST_BETWEEN_ANSWERS, HeldByAnother, Wait
from marketflow.app.share.window_lease import KEY_SECONDS

LOOK_SECONDS: Final = 0.1
"""How often (seconds) a start that waits for a lease asks for it."""
LOOK_PATIENCE: Final = LEASE_PATIENCE / 2
"""How long (seconds) such a look may take. If a store does not answer it, that time has been waited."""
EXPIRED_SECONDS: Final = KEY_SECONDS + 5 * LOOK_SECONDS
"""How long (seconds) after its boot has ended a key on Redis may remain, and a few looks more."""


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


class WriterLease(StoreLease, Protocol):
    """The lease of the window, as its writer uses it."""

    def wrote(self, sent_at: float) -> None:
        """Writes were acknowledged, the last of them sent at that time (seconds of Trio's clock)."""
        ...

    async def release(self) -> None:
        """Write no more, and give the lease back.

        Raises:
            StoreAway: it expires.
        """
        ...


class Lease:
    """The leases of both stores, taken together."""

    def __init__(self, *, database: StoreLease, window: StoreLease) -> None:
        self.database = database
        self.window = window
        self._over = False

    def end(self) -> None:
        """In a cluster: the term is over. Either store may have told so first."""
        self._over = True

    @property
    def leased_until(self) -> float:
        """When we last had the store that another boot uses now (Trio's clock). inf: no other boot.

        The next term of a cluster seals the window before it accepts anything. So what was received before
        our last write to it is ours alone.
        """
        if self._over:
            return self.window.leased_until
        leases = (self.database, self.window)
        return min((lease.leased_until for lease in leases if lease.another), default=math.inf)

    async def take(self) -> None:
        """At a start: take both, waiting for another boot to end.

        A store that is away is not waited for: its lease is taken once it answers.

        Raises:
            StoreTaken: another boot has not ended in `LEASE_PATIENCE`.
            StoreUnfit: a store answers, and waiting does not make it fit for us.
        """
        wait, patience = Wait(), LEASE_PATIENCE
        if await self._take(self.database, wait, patience):
            self.database.state.answered()
            patience = max(patience, wait.waited + EXPIRED_SECONDS)
        # Last, since nothing renews it until the flusher runs. That also tells whether the window is up.
        await self._take(self.window, wait, patience)

    async def _take(self, lease: StoreLease, wait: Wait, patience: float) -> bool:
        """Returns whether we have it; not, if the store is away."""
        try:
            await lease.ensure()
        except HeldByAnother as error:
            lease.state.failed(error)
            seen = error
        except StoreAway:
            return False
        else:
            return True
        most = MOST_BETWEEN_ANSWERS
        while not wait.another(trio.current_time(), patience, most=most):
            await trio.sleep(LOOK_SECONDS)
            most = LOOK_PATIENCE
            with trio.move_on_after(LOOK_PATIENCE):
                try:
                    await lease.ensure()
                except HeldByAnother as error:
                    seen, most = error, MOST_BETWEEN_ANSWERS
                except StoreAway:
                    pass  # The other boot may still be alive.
                else:
                    return True
        raise seen.taken
