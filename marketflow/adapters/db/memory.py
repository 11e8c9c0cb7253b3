"""The twin of the PostgreSQL store, in memory: same behaviour, with simulated failures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

import attrs
import msgspec
import trio

from marketflow.app.ports import Aggregate, RowsRefused, StoreAway, StoreTaken
from marketflow.app.share.foreign_bars import is_foreign_row
from marketflow.domain.bars import Bar
from marketflow.domain.periods import Span, floor_to
from marketflow.domain.prices import Pair, PriceUpdate

DELETED_AT_ONCE: Final = 10_000


class MemoryStore:
    """The port `AggregateStore` on a dictionary."""

    def __init__(self, interval: int) -> None:
        """`interval` of the aggregates in ms."""
        self.rows: dict[tuple[str, str, int], Aggregate] = {}
        """The rows, by exchange, symbol and end."""
        self.taken = False
        """Whether another service has the lock when we try to take it."""
        self.refuses: Callable[[Aggregate], bool] = lambda _: False
        """Returns whether a row is refused."""
        self._interval = interval
        self._away = False
        self._held = False
        self._leases = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock."""
        self._held = False

    @property
    def away(self) -> bool:
        """Whether every call fails. Going away loses the lock, as a broken connection does."""
        return self._away

    @away.setter
    def away(self, away: bool) -> None:
        self._away = away
        if away:
            self._held = False

    async def lease(self) -> int:
        """See the port."""
        await self._answer()
        if not self._held:
            if self.taken:
                raise StoreTaken
            self._held = True
            self._leases += 1
        return self._leases

    async def write(self, aggregates: Sequence[Aggregate]) -> None:
        """See the port."""
        await self._answer(held=True)
        if any(map(self.refuses, aggregates)):
            raise RowsRefused("told to refuse")
        for aggregate in aggregates:
            self._put(aggregate)

    def _put(self, aggregate: Aggregate) -> None:
        key = (aggregate.exchange, aggregate.symbol, aggregate.end)
        known = self.rows.get(key)
        if known is None or self._is_foreign(known) or _rank(aggregate) >= _rank(known):
            bar = msgspec.structs.replace(aggregate.bar, open_sequence=0, close_sequence=0, close_volume=None)
            self.rows[key] = attrs.evolve(aggregate, bar=bar)

    def _is_foreign(self, row: Aggregate) -> bool:
        return is_foreign_row(row.bar, row.end, self._interval)

    async def delete_before(self, end: int) -> int:
        """See the port."""
        await self._answer(held=True)
        past = [key for key in self.rows if key[2] < end and self._is_in_scope(key[0])]
        ends = sorted(key[2] for key in past)[:DELETED_AT_ONCE]
        old = [key for key in past if key[2] <= ends[-1]]
        for key in old:
            del self.rows[key]
        return len(old)

    def _is_in_scope(self, exchange: str) -> bool:  # noqa: ARG002 - for stores of one exchange
        """Whether rows of the exchange are deleted."""
        return True

    async def bars(self, pairs: Sequence[Pair], span: Span, width: int) -> Mapping[Pair, Mapping[int, Bar]]:
        """See the port. Pairs without rows are left out."""
        await self._answer()
        asked = set(pairs)
        found: dict[Pair, dict[int, Bar]] = {}
        for (exchange, symbol, end), aggregate in self.rows.items():
            start = end - self._interval
            within = start >= span.start and end <= span.end
            if (exchange, symbol) in asked and within and not self._is_foreign(aggregate):
                buckets = found.setdefault((exchange, symbol), {})
                bucket = floor_to(start, width)
                known = buckets.get(bucket)
                buckets[bucket] = aggregate.bar if known is None else known.merge(aggregate.bar)
        return found

    async def skip(
        self, pairs: Sequence[Pair], span: Span, rows: int, *, backwards: bool = False
    ) -> int | None:
        """See the port."""
        await self._answer()
        found = []
        for pair in set(pairs):
            starts = sorted(
                end - self._interval
                for (exchange, symbol, end), row in self.rows.items()
                if (exchange, symbol) == pair and span.start <= end - self._interval and end <= span.end
                if not self._is_foreign(row)
            )
            if len(starts) > rows:
                found.append(starts[-1 - rows] + self._interval if backwards else starts[rows])
        return (max if backwards else min)(found, default=None)

    async def newest(self, pairs: Sequence[Pair]) -> Mapping[Pair, PriceUpdate]:
        """See the port."""
        await self._answer()
        asked = set(pairs)
        return {
            (row.exchange, row.symbol): PriceUpdate(
                row.exchange, row.symbol, row.bar.close, row.bar.close_time, 0
            )
            for row in sorted(self.rows.values(), key=lambda row: row.end)
            if (row.exchange, row.symbol) in asked and not self._is_foreign(row)
        }

    async def _answer(self, *, held: bool = False) -> None:
        await trio.lowlevel.checkpoint()
        if self._away:
            raise StoreAway("told to be away")
        if held and not self._held:
            raise StoreAway("not connected")


def _rank(row: Aggregate) -> tuple[int, int]:
    """Of two versions of a row the one of more updates stays; of equal ones that of more volumes."""
    traded = row.bar.traded
    return row.bar.count, 0 if traded is None else traded.updates
