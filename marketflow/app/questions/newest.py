"""The newest update of each pair: from its bars, or from its newest row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import trio

from marketflow.app.answers import MEMORY, POSTGRES, REDIS, AnswerSource, NothingCanAnswer
from marketflow.app.knowledge import View, Views
from marketflow.app.ports import RowReading, StoreAway
from marketflow.app.questions.newest_rows import NewestRows
from marketflow.domain.prices import Pair, PriceUpdate

ROWS_PATIENCE: Final = 0.25
"""Seconds that an answer which could be given from memory waits for newer rows."""


class NewestUpdates:
    """Finds the newest update of each pair, however old it is."""

    def __init__(self, *, views: Views, store: RowReading) -> None:
        self._views = views
        self._rows = NewestRows(store)

    async def of(self, pairs: Sequence[Pair]) -> dict[Pair, tuple[PriceUpdate, AnswerSource]]:
        """The newest update of each pair that has one, and where it comes from.

        Raises:
            NothingCanAnswer: no update is known, and a store that might know one is away.
        """
        view = self._views.of({exchange for exchange, _ in pairs})
        await view.bars.catch_up(pairs)
        found = await _in_bars(view, pairs)
        if not _are_newest(found, pairs, since=view.standing.known_from):
            await view.standing.wait_for_history(0)
            found = await _in_bars(view, pairs)
        # As long as earlier boots' bars are unread, rows may tell of newer updates than ours.
        history_known = view.standing.history_known
        wanted = [pair for pair in pairs if pair not in found or not history_known]
        if not wanted:
            return found
        rows: Mapping[Pair, PriceUpdate] = {}
        try:
            # What is known already does not wait for a PostgreSQL that hangs.
            with trio.move_on_after(math.inf if len(found) < len(pairs) else ROWS_PATIENCE):
                rows = await self._rows.of(wanted)
        except StoreAway:
            if not found:
                raise NothingCanAnswer from None
            return found
        for pair, update in rows.items():
            if pair not in found or found[pair][0].timestamp < update.timestamp:
                found[pair] = (update, POSTGRES)
        if not found and not view.standing.history_known:
            raise NothingCanAnswer
        return found


def _are_newest(
    found: Mapping[Pair, tuple[PriceUpdate, AnswerSource]], pairs: Sequence[Pair], *, since: int
) -> bool:
    """Whether no unread bars can tell of newer updates: those from `since` (ms) on have been read."""
    return since == 0 or all(pair in found and found[pair][0].timestamp >= since for pair in pairs)


async def _in_bars(view: View, pairs: Sequence[Pair]) -> dict[Pair, tuple[PriceUpdate, AnswerSource]]:
    """What the bars tell. They have every update that is in the window, and those that are pending."""
    source: AnswerSource = REDIS if await view.standing.can_answer_from_redis() else MEMORY
    return {
        pair: (
            PriceUpdate(*pair, bar.close, bar.close_time, bar.close_sequence, bar.close_volume),
            source,
        )
        for pair in pairs
        if (bar := view.bars.newest(pair)) is not None
    }
