"""The fence: in a cluster it stands where the lease of the window stands on a single machine.

Each exchange has a fence in the window, which names the term that may write. Every write is refused if the
fence has changed since its writer looked. So what a node writes that has lost its exchange, and does not know
it yet, has no effect.

```
              ours, or older and sealed                          an attempt to write has failed
 unsealed ─────────────────────────────> sealed ─────────────────────────────────────────────────> unsealed
    │                                      │
    │ a later term has it                  │ given back
    v                                      v
 fenced                                 released
```
A fence that is gone or older shows a window that was emptied or has come back older. It is sealed again, but
only while the database says that the exchange is still ours. To a window that was away the same applies: the
exchange may have been another's meanwhile, so the database has to answer first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum

import attrs
import structlog

from marketflow.app.instruments.stores import StoreState
from marketflow.app.ports import NEVER, Fenced, Sight, StoreAway, Term, Window

log = structlog.get_logger()


class FenceState(Enum):
    """Where we are with the fence."""

    UNSEALED = "unsealed"
    """It may be another's. Nothing is written."""
    SEALED = "sealed"
    """It is ours."""
    FENCED = "fenced"
    """A later term has it. The end."""
    RELEASED = "released"
    """We write no more. The end."""


class Seen(Enum):
    """What a look at the fence has shown."""

    OURS = "ours"
    EARLIER = "earlier"
    """It is gone, or of an earlier term."""
    LATER = "later"


def fence_of(term: Term) -> str:
    """The fence of a term, as the window keeps it."""
    return f"{term.epoch}:{term.id}"


def seen(fence: str | None, term: Term) -> Seen:
    """Compare the fence that was found with a term.

    Of equal epochs with different ids the database has forgotten the first one. It is not ours to write over:
    a term with a greater epoch is needed.
    """
    if fence is None:
        return Seen.EARLIER
    epoch, _, number = fence.partition(":")
    if not epoch.isdecimal() or int(epoch) < term.epoch:
        return Seen.EARLIER
    return Seen.OURS if (int(epoch), number) == (term.epoch, term.id) else Seen.LATER


@attrs.frozen
class Held:
    """Under which term a share has its exchange."""

    term: Term
    confirmed: Callable[[], bool]
    """Whether the database has said that the term is ours, and its word still holds."""


class Fence:
    """Keeps the window for a term."""

    def __init__(self, window: Window, *, held: Held, state: StoreState) -> None:
        self.state = state
        self.leased_until = -math.inf
        """When it was ours for sure the last time (Trio's clock); -inf if it never was."""
        self._window = window
        self._term = held.term
        self._confirmed = held.confirmed
        self._fence = FenceState.UNSEALED
        self._found: str | None = None
        """The fence, as it was seen last."""

    @property
    def another(self) -> bool:
        """Whether a later term has it for sure."""
        return self._fence is FenceState.FENCED

    async def ensure(self) -> None:
        """Return once the fence is ours: at once if nothing has failed since it was.

        Raises:
            StoreAway: the window is away, or the database has not confirmed the term yet.
            Fenced: a later term has it.
        """
        if self._fence is FenceState.SEALED and self.state.up:
            return
        if self._fence in {FenceState.FENCED, FenceState.RELEASED}:
            raise self._fenced()
        self._fence = FenceState.UNSEALED
        sight = await self._window.look()
        self._found = sight.holder
        match seen(sight.holder, self._term):
            case Seen.LATER:
                self._fence = FenceState.FENCED
                log.warning("fenced", exchange=self._term.exchange, epoch=self._term.epoch, by=sight.holder)
                raise self._fenced()
            case _ if not self._confirmed():
                raise StoreAway("the database has not said yet whether the exchange is still ours")
            case Seen.EARLIER:
                await self._seal(sight)
        self._fence = FenceState.SEALED

    async def _seal(self, sight: Sight) -> None:
        if not await self._window.take(sight):
            raise StoreAway("the fence has changed meanwhile")
        log.info("sealed", exchange=self._term.exchange, epoch=self._term.epoch, over=sight.holder)

    def wrote(self, sent_at: float) -> None:
        """Writes were acknowledged, the last of them sent at that time (seconds of Trio's clock)."""
        self.leased_until = sent_at

    async def release(self) -> None:
        """Write no more. The fence stays, so that the next term has a greater epoch."""
        self._fence = FenceState.RELEASED

    def _fenced(self) -> Fenced:
        epoch = (self._found or "").partition(":")[0]
        return Fenced(
            f"a later term than {fence_of(self._term)} has {self._term.exchange}: {self._found}",
            int(epoch) if epoch.isdecimal() else NEVER,
        )
