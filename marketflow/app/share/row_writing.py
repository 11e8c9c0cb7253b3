"""Rows on their way to the store, which may refuse some of them, or all.

A refused row holds up no other: its batch is tried in halves, down to the rows at fault. These stay due, and
are tried again after a while. How many refused writes a turn may have is bounded: with thousands of bad rows
the search goes on in the next turns. Rows of pairs that had none refused are written first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog
import trio

from marketflow.app.instruments.stores import StoreState
from marketflow.app.ports import Aggregate, AggregateStore, RowsRefused
from marketflow.app.share.rows import Due, Rows
from marketflow.app.share.unwritten import Unwritten
from marketflow.domain.prices import Pair

log = structlog.get_logger()

REFUSED_SECONDS: Final = 60.0
"""How long a row that the store has refused waits until it is tried again."""
REFUSED_ROWS: Final = 20
"""How many of these are tried in one write, and, as long as some are refused again, each second."""
REFUSED_WRITES: Final = 60
"""How many writes of one turn may be refused, about: of a batch of 200 rows one bad one takes eight."""


class RowWriter:
    """Writes rows, and remembers those that were refused."""

    def __init__(self, *, store: AggregateStore, state: StoreState, due: Rows) -> None:
        self._store = store
        self._state = state
        self._due = due
        self._again: dict[tuple[int, Pair], float] = {}
        """By interval (its end) and pair, when it is to be tried again (seconds of Trio's clock)."""
        self._left = 0
        """How many writes may yet be refused in this turn."""
        self._reason: str | None = None
        """Why rows of the present batch were refused; None once one of them was taken."""
        self.written = 0
        """Rows written by this boot."""

    @property
    def refused(self) -> int:
        """How many rows wait because the store has refused them."""
        return len(self._again)

    @property
    def spent(self) -> bool:
        """Whether this turn has had as many refused writes as it may."""
        return self._left <= 0

    def begin_turn(self, due: Sequence[Due], unwritten: Unwritten) -> tuple[list[Due], list[Due]]:
        """The rows to write for the first time, in their order, and those to try again.

        Of the first, those of pairs with refused rows come last.
        """
        self._left = REFUSED_WRITES
        now = trio.current_time()
        # A comparison may have found that the store has one of them after all.
        self._again = {(end, pair): at for (end, pair), at in self._again.items() if unwritten.has(pair, end)}
        again = [row for row in due if self._again.get((row.end, row.pair), now + 1) <= now]
        suspects = {pair for _, pair in self._again}
        first = [row for row in due if (row.end, row.pair) not in self._again]
        return sorted(first, key=lambda row: row.pair in suspects), again

    async def write(self, rows: Sequence[tuple[Due, Aggregate | None]], *, again: bool = False) -> bool:
        """Write a batch; returns whether the store has taken it as a whole.

        If it takes no row of a new batch, the fault may be ours: the store's state then shows it.
        """
        taken_before = self.written
        self._reason = None
        whole = await self._write(rows)
        if self._reason is not None and self.written == taken_before and not again:
            self._state.refused(self._reason)
        return whole

    async def _write(self, rows: Sequence[tuple[Due, Aggregate | None]]) -> bool:
        made = [row for _, row in rows if row is not None]
        try:
            await self._store.write(made)
        except RowsRefused as error:
            self._left -= 1
            self._reason = str(error)
            if len(rows) == 1:
                self._refuse(rows[0][0], error)
            else:
                for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
                    if not self.spent:
                        await self._write(half)
            return False
        self._state.answered()
        if made:
            self._state.took()
        self._due.written([due for due, _ in rows])
        for due, _ in rows:
            self._again.pop((due.end, due.pair), None)
        self.written += len(made)
        log.debug("aggregates written", rows=len(made), first_end=rows[0][0].end, last_end=rows[-1][0].end)
        return True

    def _refuse(self, due: Due, error: RowsRefused) -> None:
        if (due.end, due.pair) not in self._again:
            exchange, symbol = due.pair
            log.error("row refused", exchange=exchange, symbol=symbol, end=due.end, error=str(error))
        self._again[due.end, due.pair] = trio.current_time() + REFUSED_SECONDS
