"""The newest rows, remembered for a moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import trio

from marketflow.app.ports import AggregateStore
from marketflow.domain.prices import Pair, PriceUpdate

REMEMBERED_SECONDS: Final = 1.0
"""How long what the store has said is not asked again; and longer by as long as it takes to answer anew."""


class NewestRows:
    """What the store knows of pairs that have no bars.

    Such a pair has no updates, so that we write no rows of it, and only somebody else can. But it may stay so
    for long, a symbol that an exchange does not have: every question for the latest prices would ask for it.
    """

    def __init__(self, store: AggregateStore) -> None:
        self._store = store
        self._asked: dict[Pair, float] = {}
        """When it was last asked for (seconds of Trio's clock)."""
        self._found: dict[Pair, PriceUpdate] = {}
        self._asking: set[Pair] = set()
        """What a question asks for anew: others do with what is remembered, else all would ask, and wait.

        Only what was never asked for all ask for, so that nobody is told that there is nothing before it is
        known.
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
