"""The twins in memory of a term's window and of the changes, for tests of the use cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import trio

from marketflow.adapters.cache.memory import MemoryFlush, MemoryShelf, MemoryWindow
from marketflow.app.ports import START, Change, Sight, StoreAway, Term
from marketflow.app.share.fence import fence_of


@attrs.define
class FencedShelf(MemoryShelf):
    """What the store holds of one exchange."""

    fence: str | None = None
    changes: list[Change] = attrs.field(factory=list)
    """The newest `most_changes`."""
    most_changes: int = 1_000

    def empty(self) -> None:
        """Forget everything, as after a restart of the store."""
        super().empty()
        self.fence = None
        self.changes.clear()

    def append(self, change: Change) -> None:
        """Append a change, and remove the oldest that is too many."""
        self.changes.append(change)
        del self.changes[: -self.most_changes]


class MemoryTermWindow(MemoryWindow):
    """Fills the port Window for one term. A write has no effect if the fence has changed since a look."""

    def __init__(self, term: Term, shelf: FencedShelf) -> None:
        super().__init__(boot=term.id, shelf=shelf)
        self._term = term
        self._fenced = shelf
        self._number = 0
        """Of the last change, written or not."""
        self._numbers: dict[int, int] = {}
        """By flush."""
        self._watched = False
        """Whether the fence was ours at the last look, and no write has failed since."""

    async def look(self) -> Sight:
        """See the port."""
        await self._reach()
        self._watched = self._fenced.fence == fence_of(self._term)
        return Sight(self._fenced.fence, self._fenced.marker)

    async def take(self, found: Sight) -> bool:
        """See the port."""
        await self._reach()
        if self._fenced.fence != found.holder:
            return False
        if found.holder is None:
            self._fenced.changes.clear()
        self._fenced.fence = fence_of(self._term)
        self._watched = True
        return True

    async def release(self) -> None:
        """The fence stays."""

    async def post(self, flush: MemoryFlush) -> bool:
        """See the port."""
        if not self._watched:
            raise StoreAway("the fence has not been looked at since the last failure")
        if flush.flush.bars:
            self._number += 1
            self._numbers[id(flush)] = self._number
        try:
            return await super().post(flush)
        except StoreAway:
            self._watched = False
            raise

    def _write(self, write: MemoryFlush) -> None:
        if self._fenced.fence != fence_of(self._term):
            raise StoreAway("the fence has changed: nothing was written")
        super()._write(write)
        number = self._numbers.pop(id(write), None)
        if number is not None and "bars" not in self.refused:
            place = f"{self._term.epoch}-{number}"
            self._fenced.append(Change(place, self._term.id, tuple(write.flush.bars)))


class MemoryChanges:
    """Fills the port Changes."""

    def __init__(self, shelves: Mapping[str, FencedShelf]) -> None:
        """`shelves`: by exchange."""
        self.away = False
        """While it is set, every call fails."""
        self._shelves = shelves

    async def end(self, exchange: str) -> str:
        """See the port."""
        await self._reach()
        changes = self._shelves[exchange].changes
        return changes[-1].place if changes else START

    async def after(self, exchange: str, place: str) -> Sequence[Change]:
        """See the port."""
        await self._reach()
        shelf = self._shelves[exchange]
        if shelf.fence is not None and int(shelf.fence.partition(":")[0]) < _order(place)[0]:
            place = START
        return [change for change in shelf.changes if _order(change.place) > _order(place)]

    async def _reach(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise StoreAway("switched off")


def _order(place: str) -> tuple[int, int]:
    epoch, _, number = place.partition("-")
    return int(epoch), int(number)
