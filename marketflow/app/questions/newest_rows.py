"""The newest row of each pair, remembered for a second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import trio

from marketflow.app.ports import RowReading
from marketflow.domain.prices import Pair, PriceUpdate

REMEMBERED_SECONDS: Final = 1.0
"""How long an answer of the store is used before it is asked again."""


class NewestRows:
    """Asks the store for the newest rows of pairs that have no bars, at most once a second for each pair.

    An exchange may not have every configured symbol. Such a pair never has bars, and without a memory each
    question for the latest prices would cost a call to the store. A pair without bars has no new updates, so
    its newest row hardly changes.
    """

    def __init__(self, store: RowReading) -> None:
        self._store = store
        self._asked: dict[Pair, float] = {}
        """When the store was last asked for a pair (seconds of Trio's clock)."""
        self._found: dict[Pair, PriceUpdate] = {}
        self._asking: set[Pair] = set()
        """Pairs for which a question is asking the store just now. Other questions use what is remembered.

        For a pair that was never asked for, every question asks: nothing is remembered of it yet.
        """

    async def of(self, pairs: Sequence[Pair]) -> Mapping[Pair, PriceUpdate]:
        """The newest row of each pair that has one, as the update that closed it.

        Raises:
            StoreAway: one is not remembered, and the store does not answer.
        """
        now = trio.current_time()
        wanted = [pair for pair in pairs if self._is_wanted(pair, now)]
        if wanted:
            self._asking.update(wanted)
            try:
                rows = await self._store.newest(wanted)
            finally:
                self._asking.difference_update(wanted)
            for pair in wanted:
                self._found.pop(pair, None)
            self._found.update(rows)
            self._asked.update(dict.fromkeys(wanted, now))
        return {pair: self._found[pair] for pair in pairs if pair in self._found}

    def _is_wanted(self, pair: Pair, now: float) -> bool:
        asked = self._asked.get(pair)
        return asked is None or (now - asked > REMEMBERED_SECONDS and pair not in self._asking)
