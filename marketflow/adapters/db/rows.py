"""Reads rows of aggregates, for questions and for comparing. Foreign rows are ignored, and logged seldom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, LiteralString, TypeVar

import psycopg
import structlog
from psycopg.rows import TupleRow

from marketflow.adapters.db import statements
from marketflow.adapters.db.readers import Readers
from marketflow.app.instruments.seldom import FOREIGN_LOG_EVERY, Seldom
from marketflow.app.ports import RowBars, StoreAway
from marketflow.app.share.foreign_bars import most_updates
from marketflow.domain.bars import Bar
from marketflow.domain.columns import Traded
from marketflow.domain.periods import Span
from marketflow.domain.prices import Pair, PriceUpdate

T = TypeVar("T")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_EARLIEST: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND
_LATEST: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND

# Sums of large prices overflow, which is an error in PostgreSQL; so is an underflow to zero. Averages from
# this value on are summed separately, scaled down by a power of two, which is exact, and divided in Python.
_LARGE: Final = 1e280
_SCALE: Final = 2.0**100

log = structlog.get_logger()


class StoredRows:
    """Answers questions about rows. The lock is not needed."""

    def __init__(self, readers: Readers, interval: int) -> None:
        """`interval` of the aggregates in ms."""
        self.readers = readers
        self.made = False
        """Whether the tables exist: we have made or found them."""
        self.hangs: str | None = None
        """Why the last `lease` got no answer. While it is set, questions fail at once instead of waiting."""
        self._interval = interval
        self._foreign = Seldom(FOREIGN_LOG_EVERY)

    async def bars(self, pairs: Sequence[Pair], span: Span, width: int) -> RowBars:
        """See the port. Pairs without rows are left out."""
        query = statements.ROWS if width <= self._interval else statements.BUCKETS
        parameters = self._within(pairs, span) | {
            "width": timedelta(milliseconds=width),
            "large": _LARGE,
            "scale": _SCALE,
        }
        foreign: dict[tuple[Pair, int], int] = {}

        def read(connection: psycopg.Connection) -> dict[Pair, dict[int, Bar]]:
            found: dict[Pair, dict[int, Bar]] = {}
            for symbol, exchange, bucket, others, *columns in self._rows(connection, query, parameters):
                pair = exchange, symbol
                if others:
                    foreign[pair, bucket] = foreign.get((pair, bucket), 0) + others
                if columns[0]:
                    found.setdefault(pair, {})[bucket] = _bar(columns)
            return found

        found = await self._read(read)
        self._tell(foreign)
        return found

    async def skip(
        self, pairs: Sequence[Pair], span: Span, rows: int, *, backwards: bool = False
    ) -> int | None:
        """See the port."""
        query = statements.SKIP_BACK if backwards else statements.SKIP
        parameters = self._within(pairs, span) | {"rows": rows}

        def read(connection: psycopg.Connection) -> int | None:
            found = self._rows(connection, query, parameters)
            return found[0][0] if found else None

        return await self._read(read)

    async def newest(self, pairs: Sequence[Pair]) -> Mapping[Pair, PriceUpdate]:
        """See the port."""
        parameters = self._within(pairs, Span(_EARLIEST, _LATEST))

        def read(connection: psycopg.Connection) -> dict[Pair, PriceUpdate]:
            return {
                (exchange, symbol): PriceUpdate(exchange, symbol, price, time, 0)
                for symbol, exchange, price, time in self._rows(connection, statements.NEWEST, parameters)
            }

        return await self._read(read)

    def _within(self, pairs: Sequence[Pair], span: Span) -> dict[str, object]:
        """The parameters of a query for rows within the span."""
        asked = set(pairs)
        return check_parameters(self._interval) | {
            "exchanges": [pair[0] for pair in asked],
            "symbols": [pair[1] for pair in asked],
            "first": limit_of(span.start + self._interval),
            "last": limit_of(span.end),
        }

    async def _read(self, fn: Callable[[psycopg.Connection], T]) -> T:
        if self.hangs is not None:
            raise StoreAway(self.hangs)
        return await self.readers.run(fn)

    def _rows(
        self, connection: psycopg.Connection, query: LiteralString, parameters: Mapping[str, object]
    ) -> list[TupleRow]:
        """All rows of the result; none if the tables have not been made yet."""
        try:
            return connection.execute(query, parameters, binary=True).fetchall()
        except psycopg.errors.UndefinedTable:
            if self.made:  # somebody has removed them
                raise
            return []

    def _tell(self, foreign: Mapping[tuple[Pair, int], int]) -> None:
        """Log the first of the rows that were ignored, and how many others were since the last line."""
        if not foreign or (others := self._foreign.turn(sum(foreign.values()))) is None:
            return
        (exchange, symbol), bucket = min(foreign)
        log.warning("foreign row ignored", exchange=exchange, symbol=symbol, near=bucket, others_since=others)


def check_parameters(interval: int) -> dict[str, object]:
    """The parameters by which the statements tell our rows from foreign ones; the interval in ms."""
    return {
        "interval": timedelta(milliseconds=interval),
        "epoch": _EPOCH,
        "most": most_updates(interval),
    }


def _bar(columns: Sequence[Any]) -> Bar:
    """The bar in the columns that statements.ROWS and statements.BUCKETS share."""
    count, small, large, lowest, highest, opened, open_time, closed, close_time, told, *sums = columns
    average = small
    if large is not None:
        average = min(max(small / count + large / count * _SCALE, lowest), highest)
    traded = Traded.of(told, *sums) if told else None
    return Bar(count, average, lowest, highest, opened, open_time, 0, closed, close_time, 0, traded)


def limit_of(timestamp: int) -> datetime:
    """The limit (ms) of a search, exact, and clamped to the years 1 to 9999."""
    return _EPOCH + timedelta(milliseconds=min(max(timestamp, _EARLIEST), _LATEST))
