"""A mirror: what a node knows of an exchange that another node has.

```
            asked for            the window's bars are read
 unread ──────────────> reading ────────────────────────────> followed ───┐ the next change
   ^                       │                                    │   ^     │
   │     the window is away│                                    │   └─────┘
   └───────────────────────┴────────────────────────────────────┘
        changes are missing, another term has begun, or the window has come back older
```
This is so for each pair: what nobody asks for is not read. Every change of the exchange has a place, and its
bars are absolute. So a pair is read as it is, after a place was noted, and all changes behind that place are
put on top; what the pair already had changes nothing.

One read serves all who ask: a question needs one that began after it was asked.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import attrs
import structlog
import trio

from marketflow.app.cluster.mirrored_bars import MirroredBars
from marketflow.app.ports import (
    BARS_KEPT,
    Change,
    Changes,
    Clock,
    StoreAway,
    WindowReading,
)
from marketflow.domain.periods import MINUTE, floor_to
from marketflow.domain.prices import Pair

log = structlog.get_logger()

MOST_APART: Final = 2_000
"""How far (ms) the clocks of two nodes may be apart."""


@attrs.define
class Copy:
    """A copy of some pairs' bars."""

    place: str | None = None
    """Up to where changes are in it; None: nothing was read."""
    pairs: set[Pair] = attrs.field(factory=set)
    bars: MirroredBars = attrs.field(factory=MirroredBars)
    newest: int = 0
    """The greatest timestamp (ms) in all changes, of any pair."""

    def put_on_top(self, changes: Sequence[Change]) -> bool:
        """Take over changes; returns whether none is missing before or between them."""
        for change in changes:
            if self.place is None or change.place != _following(self.place):
                return False
            self.place = change.place
            for pair, field, bar in change.bars:
                self.newest = max(self.newest, bar.close_time)
                if pair in self.pairs:
                    self.bars.copy(pair, field, bar)
        return True


class Mirror:
    """Follows an exchange."""

    def __init__(self, exchange: str, *, window: WindowReading, changes: Changes, clock: Clock) -> None:
        """Nothing is read before somebody asks.

        Args:
            exchange: which one.
            window: its bars are read there.
            changes: what has changed since.
            clock: the wall clock.
        """
        self.exchange: Final = exchange
        self.began_at: Final = clock.now()
        """Unix ms."""
        self.answers = False
        """Whether the window has answered the last time."""
        self.error: str | None = None
        """Why it has not; None if it has, or was not asked yet."""
        self._window = window
        self._changes = changes
        self._clock = clock
        self._copy = Copy()
        self._copies = 0
        """How many were begun before this one."""
        self._reads = 0
        """How many reads have begun."""
        self._turn = trio.Lock()

    @property
    def bars(self) -> MirroredBars:
        """Those that are known. When all have to be read again these stay until that is done."""
        return self._copy.bars

    @property
    def newest(self) -> int:
        """The greatest timestamp (ms) that it has seen, of any pair; 0: none."""
        return max(self._copy.newest, self.bars.newest_bars.times.get(self.exchange, 0))

    @property
    def arrived(self) -> int:
        """It changes with each change that is known."""
        return self._copies + self.bars.copied

    async def catch_up(self, pairs: Collection[Pair]) -> None:
        """Learn of all that the window had of these pairs before this call. Then `answers` tells whether."""
        needed = self._reads + 1
        async with self._turn:
            if self._reads >= needed and self._copy.pairs.issuperset(pairs):
                return
            self._reads += 1
            try:
                await self._read(pairs)
            except StoreAway as error:
                if self.answers:
                    log.warning("mirror stands still", exchange=self.exchange, error=str(error))
                self.answers, self.error = False, str(error)
            else:
                self.answers, self.error = True, None

    async def _read(self, pairs: Collection[Pair]) -> None:
        copy = self._copy
        if copy.place is not None and not await self._is_followed(copy, copy.place):
            log.info("mirror reads again", exchange=self.exchange, behind=copy.place, pairs=len(copy.pairs))
            self._copies += copy.bars.copied + 1
            pairs = copy.pairs.union(pairs)
            copy = Copy(newest=copy.newest)
        if copy.place is None:
            copy.place = (await self._changes.ends([self.exchange]))[self.exchange]
        await self._add(copy, sorted(set(pairs) - copy.pairs))
        copy.bars.forget(floor_to(self._clock.now() + MOST_APART - BARS_KEPT, MINUTE))
        self._copy = copy

    async def _is_followed(self, copy: Copy, place: str) -> bool:
        """Put all changes behind the copy's place on top of it; returns whether none is missing."""
        changes = await self._changes.after({self.exchange: place})
        return copy.put_on_top(changes[self.exchange])

    async def _add(self, copy: Copy, pairs: Sequence[Pair]) -> None:
        """Add pairs to a copy. What changes meanwhile comes with the next changes."""
        if not pairs:
            return
        found = await self._window.all_bars(pairs)
        for pair in pairs:
            copy.bars.copy_minutes(pair, found.get(pair, {}).values())
            copy.pairs.add(pair)
            await trio.lowlevel.checkpoint()


def _following(place: str) -> str:
    """The place of the next change of the same term: `<epoch>-<number>`."""
    epoch, _, number = place.partition("-")
    return f"{epoch}-{int(number) + 1}"
