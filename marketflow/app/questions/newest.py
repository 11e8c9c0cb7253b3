"""The newest update of each pair: from its bars, or from its newest row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from marketflow.app.answers import MEMORY, POSTGRES, REDIS, AnswerSource, NothingCanAnswer
from marketflow.app.knowledge import KnownBars, Standing
from marketflow.app.ports import AggregateStore, StoreAway
from marketflow.app.questions.newest_rows import NewestRows
from marketflow.domain.prices import FUTURE_TOLERANCE, Pair, PriceUpdate

Found = dict[Pair, tuple[PriceUpdate, AnswerSource]]
"""The newest update of each pair that has one, and where it comes from."""


class NewestUpdates:
    """Finds the newest update of each pair, however old it is."""

    def __init__(self, *, bars: KnownBars, standing: Standing, store: AggregateStore) -> None:
        self._bars = bars
        self._standing = standing
        self._rows = NewestRows(store)

    async def of_each(self, pairs: Sequence[Pair]) -> Found:
        """The newest update of each pair that has one, and where it comes from.

        Raises:
            NothingCanAnswer: of one of them it is not known for sure.
        """
        found, sure = await self._find(pairs)
        if not all(pair in sure for pair in pairs):
            raise NothingCanAnswer
        return found

    async def of_any(self, pairs: Sequence[Pair]) -> Found:
        """The same for pairs of which only the newest update of all is wanted.

        What is unknown of some of them is older than what is known for sure of another.

        Raises:
            NothingCanAnswer: no update is known for sure, and a store that might know one is away.
        """
        found, sure = await self._find(pairs)
        if not sure or not (found.keys() & sure or len(sure) == len(pairs)):
            raise NothingCanAnswer
        return found

    async def _find(self, pairs: Sequence[Pair]) -> tuple[Found, AbstractSet[Pair]]:
        """What is known, and of which pairs it is known for sure."""
        await self._standing.wait_for_history()
        await self._bars.catch_up(pairs)
        found = await self._in_bars(pairs)
        if not self._standing.history_known:
            # Earlier boots' bars are unread, and may have newer updates than all rows.
            return found, {pair for pair in found if found[pair][0].timestamp >= self._unread_until}
        wanted = [pair for pair in pairs if pair not in found]
        if wanted:
            try:
                rows = await self._rows.of(wanted)
            except StoreAway:
                return found, found.keys()
            found |= {pair: (update, POSTGRES) for pair, update in rows.items()}
        return found, set(pairs)

    @property
    def _unread_until(self) -> float:
        """No unread bar has a timestamp (ms) from there on: earlier boots may have accepted some ahead."""
        began_at = self._standing.began_at
        return math.inf if began_at is None else began_at + FUTURE_TOLERANCE

    async def _in_bars(self, pairs: Sequence[Pair]) -> Found:
        """What the bars tell. They have every update that is in the window, and those that are pending."""
        source: AnswerSource = REDIS if await self._standing.can_answer_from_redis() else MEMORY
        return {
            pair: (PriceUpdate(*pair, bar.close, bar.close_time, bar.close_sequence), source)
            for pair in pairs
            if (bar := self._bars.newest(pair)) is not None
        }
