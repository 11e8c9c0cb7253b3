"""Deletes rows past their retention."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from marketflow.app.instruments.clocks import DataClock
from marketflow.app.ports import AggregateStore, RowsRefused
from marketflow.domain.periods import MINUTE
from marketflow.domain.prices import Pair

log = structlog.get_logger()

CLEARING_PAUSE: Final = MINUTE
"""How far (ms) the data clock moves between two searches for rows past their retention."""


class Retention:
    """How long rows are kept, by the clock of the data: a clock that is ahead deletes nothing."""

    def __init__(
        self,
        *,
        store: AggregateStore,
        data_clock: DataClock,
        pairs: Callable[[], Sequence[Pair]],
        length: int | None,
    ) -> None:
        """`length` in ms; None for ever."""
        self._store = store
        self._data_clock = data_clock
        self._pairs = pairs
        self._length = length
        self._cleared_at = -math.inf
        """When rows past their retention were last deleted (ms of the data clock)."""
        self._seen_lease = 0
        """The lease under which the newest rows were looked at: the data clock must know of them."""

    @property
    def kept_from(self) -> int:
        """Rows of intervals that start before that (ms) may have been deleted because of their age."""
        return 0 if self._length is None else self._data_clock.now() - self._length

    async def clear(self, lease: int) -> None:
        """Delete some rows past their retention, under this lease of the database.

        Raises:
            StoreAway
        """
        if self._length is None:
            return
        if self._seen_lease != lease:
            for pair, newest in (await self._store.newest(self._pairs())).items():
                self._data_clock.see(pair[0], newest.timestamp)
            self._seen_lease = lease
        now = self._data_clock.now()
        if abs(now - self._cleared_at) < CLEARING_PAUSE:
            return
        # Before the try: one that fails each second would have the store away and up in turn.
        self._cleared_at = now
        try:
            deleted = await self._store.delete_before(now - self._length)
        except RowsRefused as error:
            log.warning("deletion of aggregates refused", error=str(error))
            return
        if deleted:
            log.info("aggregates past their retention deleted", rows=deleted)
            self._cleared_at = -math.inf  # There may be more.
