"""The port for the rows of aggregates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs

from marketflow.domain.bars import Bar
from marketflow.domain.periods import Span
from marketflow.domain.prices import Pair, PriceUpdate

RowBars = Mapping[Pair, Mapping[int, Bar]]
"""Rows merged into buckets: by pair and the start (ms) of the bucket. Sequences are 0."""


@attrs.frozen
class Aggregate:
    """The bar of one closed interval of one exchange and symbol."""

    exchange: str
    symbol: str
    end: int
    """The end of the interval in Unix ms: it covers [end - interval, end)."""
    bar: Bar
    """The bar. If it was read from the store, its sequences are 0."""


class RowReading(Protocol):
    """What the store of rows answers to questions. Every method raises StoreAway, and is bounded."""

    async def bars(self, pairs: Sequence[Pair], span: Span, width: int) -> RowBars:
        """Rows within the span, merged into buckets, by the start (ms) of the bucket.

        Buckets are `width` ms wide and aligned to the epoch. Sequences are 0. Pairs without rows are left
        out. If `width` is not a multiple of the interval, a row belongs to the bucket in which it starts.
        """
        ...

    async def skip(
        self, pairs: Sequence[Pair], span: Span, rows: int, *, backwards: bool = False
    ) -> int | None:
        """Where (ms) a page of `rows` rows ends: up to there, one pair has `rows` rows within the span.

        With several pairs, the first one to reach that number decides. None if no pair has more rows than
        that in the span. Backwards, rows are counted from the span's end, and the page begins at the result.
        """
        ...

    async def newest(self, pairs: Sequence[Pair]) -> Mapping[Pair, PriceUpdate]:
        """The closing update of the newest row of each pair that has a row. Its sequence is 0."""
        ...


class AggregateStore(RowReading, Protocol):
    """Rows of aggregates, in a store that may be away. The lock and the deletion follow the share's scope.

    Every awaited method raises StoreAway when the store failed or did not answer in time; all are bounded.
    """

    async def lease(self) -> int:
        """Make sure that we are connected, have the lock, and that the schema is up to date.

        It is quick if all this is so already. Returns a number that changes each time the lock is taken
        again.

        Raises:
            StoreTaken: another service has the lock at the moment. Try again later.
            Fenced: in a cluster, another term has the exchange.
            IntervalMismatch: the rows are of another interval.
            StoreUnfit: for other reasons that waiting would not cure.
        """
        ...

    async def write(self, aggregates: Sequence[Aggregate]) -> None:
        """Insert or replace rows in one transaction.

        A row is never replaced by one with fewer updates, unless no boot can have written it. No two rows may
        be of the same interval, exchange and symbol.

        Raises:
            StoreAway: the store failed, or we do not have the lock.
            RowsRefused: at least one row is at fault. We still have the lock.
            Fenced: in a cluster, another term has the exchange. Nothing was written.
        """
        ...

    async def delete_before(self, end: int) -> int:
        """Delete the oldest rows of the scope that end before `end` (ms); returns how many.

        The scope of all exchanges also has the rows of exchanges that are not configured any more. In a
        cluster, one of the terms also deletes rows of exchanges that no node has. A bounded
        number of rows is deleted, and all that end at the same time as the last of them. Call it again until
        it returns 0. Raises RowsRefused and Fenced as well; then none was deleted.
        """
        ...
