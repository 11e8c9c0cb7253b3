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

One read serves all who ask, for all pairs that they want: a question needs one that began after it was asked.
If it fails, it has failed for all of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
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
    term: str | None = None
    """The term of its last change; None: it has none yet."""
    pairs: set[Pair] = attrs.field(factory=set)
    bars: MirroredBars = attrs.field(factory=MirroredBars)
    newest: int = 0
    """The greatest timestamp (ms) in all changes, of any pair."""

    def put_on_top(self, changes: Sequence[Change]) -> bool:
        """Take over changes; returns whether none is missing before or between them."""
        for change in changes:
            if self.place is None or change.place != _following(self.place):
                return False
            if self.term not in {None, change.term}:
                return False
            self.place, self.term = change.place, change.term
            for pair, field, bar in change.bars:
                self.newest = max(self.newest, bar.close_time)
                if pair in self.pairs:
                    self.bars.copy(pair, field, bar)
        return True


class CopyReader:
    """Makes copies of an exchange's bars, and keeps them up to date. Raises StoreAway."""

    def __init__(self, exchange: str, *, window: WindowReading, changes: Changes) -> None:
        """Bars are read in the window; changes tell what is different since."""
        self.exchange: Final = exchange
        self._window = window
        self._changes = changes

    async def read(self, known: Copy, pairs: Collection[Pair]) -> Copy:
        """A copy that is up to date, of these pairs and those that were known.

        It is the known one, unless changes are missing: then all pairs are read again, into a new one.
        """
        wanted, copy = set(pairs), known
        if known.place is not None and not await self._is_followed(known, known.place):
            log.info("mirror reads again", exchange=self.exchange, behind=known.place, pairs=len(known.pairs))
            wanted |= known.pairs
            copy = Copy(newest=known.newest)
        if copy.place is None:
            copy.place = await self._changes.end(self.exchange)
        await self._add(copy, sorted(wanted - copy.pairs))
        return copy

    async def _is_followed(self, copy: Copy, place: str) -> bool:
        """Put all changes behind the copy's place on top of it; returns whether none is missing."""
        return copy.put_on_top(await self._changes.after(self.exchange, place))

    async def _add(self, copy: Copy, pairs: Sequence[Pair]) -> None:
        """Add pairs to a copy. What changes meanwhile comes with the next changes."""
        if not pairs:
            return
        found = await self._window.all_bars(pairs)
        for pair in pairs:
            copy.bars.copy_minutes(pair, found.get(pair, {}).values())
            copy.pairs.add(pair)
            await trio.lowlevel.checkpoint()


@attrs.define(eq=False)
class SharedRead:
    """A read for all who ask before it begins."""

    pairs: set[Pair] = attrs.field(factory=set)
    """Those that are wanted. No pair is added once it has begun."""
    ended: bool = False
    """It has not if it was cancelled: then the next one who waits for it reads."""
    bars: MirroredBars | None = None
    """What it has found; None: the window has not answered."""


class SharedReads:
    """Reads one after the other. A question waits for the one that is under way, and for the next one.

    So it waits for two reads at most, however many others ask. It reads itself if the next one is cancelled.
    """

    def __init__(self, read: Callable[[Collection[Pair]], Awaitable[MirroredBars | None]]) -> None:
        """`read` returns the bars of some pairs, or None."""
        self._read = read
        self._next = SharedRead()
        self._turn = trio.Lock()

    async def after_now(self, pairs: Collection[Pair]) -> MirroredBars | None:
        """What a read has found that began after this call, and was for these pairs, too."""
        shared = self._next
        shared.pairs.update(pairs)
        async with self._turn:
            if not shared.ended:
                if shared is self._next:
                    self._next = SharedRead()
                shared.bars = await self._read(shared.pairs)
                shared.ended = True
        return shared.bars


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
        self.error: str | None = "not asked yet"
        """Why the window has not answered the last time; None if it has."""
        self._reader = CopyReader(exchange, window=window, changes=changes)
        self._clock = clock
        self._reads = SharedReads(self._read)
        self._copy = Copy()
        self.nothing: Final = MirroredBars()
        """What is known while the window does not answer."""

    @property
    def answers(self) -> bool:
        """Whether the window has answered the last time."""
        return self.error is None

    @property
    def bars(self) -> MirroredBars:
        """Those that are known at this moment: none as long as the window does not answer.

        When all have to be read again the ones that were known before stay until that is done.
        """
        return self._copy.bars if self.answers else self.nothing

    @property
    def newest(self) -> int:
        """The greatest timestamp (ms) that it has seen, of any pair; 0: none."""
        return max(self._copy.newest, self._copy.bars.newest_bars.times.get(self.exchange, 0))

    def forget(self, before: int) -> None:
        """Forget bars from before this time (ms, a whole minute)."""
        self._copy.bars.forget(before)

    async def catch_up(self, pairs: Collection[Pair]) -> MirroredBars | None:
        """Learn of all that the window had of these pairs before this call.

        Returns:
            Bars that have it; None if the window has not answered. What other questions have learnt of other
            pairs says nothing of these.
        """
        return await self._reads.after_now(pairs)

    async def _read(self, pairs: Collection[Pair]) -> MirroredBars | None:
        try:
            copy = await self._reader.read(self._copy, pairs)
        except StoreAway as error:
            if self.answers:
                log.warning("mirror stands still", exchange=self.exchange, error=str(error))
            self.error = str(error)
            return None
        self.error, self._copy = None, copy
        self.forget(floor_to(self._clock.now() + MOST_APART - BARS_KEPT, MINUTE))
        return copy.bars


def _following(place: str) -> str:
    """The place of the next change of the same term: `<epoch>-<number>`."""
    epoch, _, number = place.partition("-")
    return f"{epoch}-{int(number) + 1}"
