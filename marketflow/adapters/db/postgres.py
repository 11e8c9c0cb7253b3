"""Aggregates in PostgreSQL: one connection that writes and has the lock, and a few that read.

The lock belongs to the writing connection and is taken while connecting. So being connected and being the
only service on the stores is one state, and nothing is written without the lock. It needs PostgreSQL 14 or
newer, without a transaction pooler in between, since the lock belongs to the session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, LiteralString, Self, TypeVar

import msgspec
import psycopg
import trio
from psycopg.rows import TupleRow

from marketflow.adapters.db import statements
from marketflow.adapters.db.connecting import Connector
from marketflow.adapters.db.hosts import Hosts
from marketflow.adapters.db.lock import (
    POOLED,
    Backend,
    end,
    holds,
    is_shared,
    lock_of,
    try_lock,
    unlock,
)
from marketflow.adapters.db.migrations import SchemaTooNew, migrate
from marketflow.adapters.db.parameters import connection_parameters
from marketflow.adapters.db.pins import Pins
from marketflow.adapters.db.readers import Readers
from marketflow.adapters.db.session import Session
from marketflow.adapters.db.verdicts import NoAnswer, is_of_values, may_be_refusal
from marketflow.app.ports import (
    ALL,
    Aggregate,
    IntervalMismatch,
    RowsRefused,
    Scope,
    StoreAway,
    StoreTaken,
    StoreUnfit,
)
from marketflow.domain.bars import Bar
from marketflow.domain.periods import Span
from marketflow.domain.prices import Pair, PriceUpdate

__all__ = ["PostgresStore", "SchemaTooNew"]

T = TypeVar("T")


OLDEST_SERVER: Final = 14
"""The oldest major version of PostgreSQL that has everything we use (`date_bin`)."""
READERS: Final = 4
DELETED_AT_ONCE: Final = 10_000
"""The approximate number of rows in a deletion; rows that end at the same time are deleted together."""

_INTERVAL: Final = "aggregation.interval"
_UNLOCK_SECONDS: Final = 1.0
LOAN_SECONDS: Final = 5.0
"""The least time between two loans of a reader's connection for writing, if the server refuses a new one."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_EARLIEST: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND
_LATEST: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND

# Sums of large prices overflow, which is an error in PostgreSQL; so is an underflow to zero. Averages from
# this value on are summed separately, scaled down by a power of two, which is exact, and divided in Python.
_LARGE: Final = 1e280
_SCALE: Final = 2.0**100


class PostgresStore:
    """The port `AggregateStore` on PostgreSQL. An async context manager; entering it does not connect.

    All calls end within `timeout` (for `delete_before`: each batch). They only raise the port's errors.
    """

    def __init__(self, dsn: str, *, interval: int, timeout: float, scope: Scope = ALL) -> None:
        """`interval` of the aggregates in ms, `timeout` of a call in seconds.

        The lock is that of the `scope`, and only rows of its exchanges are deleted.

        Raises:
            ValueError: the dsn is not valid.
        """
        parameters = connection_parameters(dsn, timeout)
        hosts, pins = Hosts(), Pins(timeout)
        reading = Connector(parameters, hosts, pins)
        self._connector = Connector(parameters, hosts, pins, writes=True)
        self._interval = interval
        self._writing = Session(self._connector, timeout=timeout, prepare=self._take)
        self._readers = Readers([Session(reading, timeout=timeout) for _ in range(READERS)], timeout)
        self._scope = scope
        self._backend: Backend | None = None
        """The server process that last had the lock for us."""
        self._made = False
        """Whether the tables exist: we have made or found them."""
        self._hangs: str | None = None
        """Why the last `lease` got no answer. While it is set, questions fail at once instead of waiting."""
        self._next_loan = 0.0
        """When a reader's connection may be borrowed for writing again (seconds of Trio's clock)."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock and close all connections; takes at most a second."""
        with trio.move_on_after(_UNLOCK_SECONDS, shield=True):
            # Closing would release it too, but only after a while, for which a successor would have to wait.
            with suppress(StoreAway):
                await self._writing.run(lambda connection: unlock(connection, self._lock), connect=False)
        self._writing.close()
        self._readers.close()

    @property
    def _lock(self) -> int:
        return lock_of(self._scope)

    @property
    def threads(self) -> int:
        """The number of threads in use, including abandoned ones."""
        return self._writing.threads + self._readers.threads

    async def lease(self) -> int:
        """See the port.

        Raises:
            SchemaTooNew: the database was migrated by a newer marketflow.
        """
        connections = self._writing.connections
        try:
            held = await self._writing.run(self._holds)
        except NoAnswer as error:
            self._hangs = str(error)
            raise
        except StoreAway:
            self._hangs = None
            self._borrow()
            raise
        self._hangs = None
        if not held:
            # The next connection will find the reason, and whether another service used the store meanwhile.
            self._writing.close()
            raise StoreAway("the server has taken the lock from our connection, perhaps a pooler has")
        if self._writing.connections != connections:
            # Another server may have taken over. Connections to the former one may answer with older rows.
            self._readers.renew()
        return self._writing.connections

    def _holds(self, connection: psycopg.Connection) -> bool:
        return self._backend is not None and holds(connection, self._lock, self._backend)

    def _borrow(self) -> None:
        """If the server refuses the writing connection, let the next call use a reader's connection.

        This is done rarely: the refusal may have other reasons, and questions lose that reader.
        """
        if self._writing.connected or trio.current_time() < self._next_loan:
            return
        if any(self._writing.take_over(session) for session in self._readers.spare()):
            self._next_loan = trio.current_time() + LOAN_SECONDS

    async def write(self, aggregates: Sequence[Aggregate]) -> None:
        """See the port."""
        try:
            rows = msgspec.json.encode([_row(aggregate) for aggregate in aggregates]).decode()
        except (ValueError, TypeError, OverflowError) as error:
            raise RowsRefused(f"{type(error).__name__}: {error}") from error

        def write(connection: psycopg.Connection) -> None:
            try:
                connection.execute(statements.WRITE, {"rows": rows})
            except psycopg.Error as error:
                if not may_be_refusal(error, connection):
                    raise
                if not is_of_values(error):
                    # If the table is the cause, such as a missing column, it fails without rows, too.
                    connection.execute(statements.WRITE, {"rows": "[]"})
                raise _refusal(error) from error

        await self._writing.run(write, connect=False)

    async def delete_before(self, end: int) -> int:
        """See the port."""
        exchanges = self._scope.exchanges
        parameters = {
            "limit": _limit(end),
            "rows": DELETED_AT_ONCE,
            "exchanges": None if exchanges is None else list(exchanges),
        }

        def delete(connection: psycopg.Connection) -> int:
            try:
                return connection.execute(statements.DELETE, parameters).rowcount
            except psycopg.Error as error:
                if not may_be_refusal(error, connection):
                    raise
                raise _refusal(error) from error

        return await self._writing.run(delete, connect=False)

    async def bars(self, pairs: Sequence[Pair], span: Span, width: int) -> Mapping[Pair, Mapping[int, Bar]]:
        """See the port. Pairs without rows are left out; the lock is not needed."""
        parameters = self._within(pairs, span) | {
            "width": timedelta(milliseconds=width),
            "epoch": _EPOCH,
            "large": _LARGE,
            "scale": _SCALE,
        }

        def read(connection: psycopg.Connection) -> dict[Pair, dict[int, Bar]]:
            found: dict[Pair, dict[int, Bar]] = {}
            query = statements.ROWS if width <= self._interval else statements.BUCKETS
            for symbol, exchange, bucket, *columns in self._rows(connection, query, parameters):
                found.setdefault((exchange, symbol), {})[bucket] = _bar(columns)
            return found

        return await self._read(read)

    async def skip(
        self, pairs: Sequence[Pair], span: Span, rows: int, *, backwards: bool = False
    ) -> int | None:
        """See the port. The lock is not needed."""
        parameters = self._within(pairs, span) | {"rows": rows}

        def read(connection: psycopg.Connection) -> int | None:
            found = self._rows(connection, statements.SKIP_BACK if backwards else statements.SKIP, parameters)
            return found[0][0] if found else None

        return await self._read(read)

    def _within(self, pairs: Sequence[Pair], span: Span) -> dict[str, object]:
        """The parameters of a query for rows within the span."""
        return _columns(pairs) | {
            "interval": timedelta(milliseconds=self._interval),
            "first": _limit(span.start + self._interval),
            "last": _limit(span.end),
        }

    async def newest(self, pairs: Sequence[Pair]) -> Mapping[Pair, PriceUpdate]:
        """See the port. The lock is not needed."""
        parameters = _columns(pairs)

        def read(connection: psycopg.Connection) -> dict[Pair, PriceUpdate]:
            return {
                (exchange, symbol): PriceUpdate(exchange, symbol, price, time, 0)
                for symbol, exchange, price, time in self._rows(connection, statements.NEWEST, parameters)
            }

        return await self._read(read)

    async def _read(self, fn: Callable[[psycopg.Connection], T]) -> T:
        if self._hangs is not None:
            raise StoreAway(self._hangs)
        return await self._readers.run(fn)

    def _rows(
        self, connection: psycopg.Connection, query: LiteralString, parameters: Mapping[str, object]
    ) -> list[TupleRow]:
        """All rows of the result; none if the tables have not been made yet."""
        try:
            return connection.execute(query, parameters, binary=True).fetchall()
        except psycopg.errors.UndefinedTable:
            if self._made:  # the tables were removed
                raise
            return []

    def _take(self, connection: psycopg.Connection) -> None:
        """Prepare a new connection for writing: take the lock, check the schema and the interval.

        Raises:
            StoreTaken, StoreUnfit, SchemaTooNew, psycopg.Error
        """
        version = connection.info.server_version // 10_000
        if version < OLDEST_SERVER:
            raise StoreUnfit(f"PostgreSQL {version} is too old: it must be {OLDEST_SERVER} or newer")
        if is_shared(connection, self._connector):
            # At the start ending loses nothing. Later the service goes on from memory until the pooler pools
            # sessions again.
            raise StoreUnfit(POOLED) if self._backend is None else StoreAway(POOLED)
        backend = try_lock(connection, self._lock)
        # If it was busy, the process of our former connection may not have noticed the disconnect, and still
        # have the lock.
        if backend is None and self._backend is not None and end(connection, self._backend):
            backend = try_lock(connection, self._lock)
        if backend is None:
            raise StoreTaken
        self._backend = backend
        migrate(connection)
        self._made = True
        # Written on every connection, so that a read-only server is detected here.
        connection.execute(
            "INSERT INTO marketflow_settings (name, value) VALUES (%s, %s) ON CONFLICT DO NOTHING",
            [_INTERVAL, str(self._interval)],
        )
        query = "SELECT value::bigint FROM marketflow_settings WHERE name = %s"
        row = connection.execute(query, [_INTERVAL]).fetchone()
        if row and row[0] != self._interval:
            raise IntervalMismatch(row[0], self._interval)


def _refusal(error: psycopg.Error) -> RowsRefused:
    text = error.diag.message_primary or str(error)
    return RowsRefused(text if is_of_values(error) else f"{text} (SQLSTATE {error.sqlstate})")


def _columns(pairs: Sequence[Pair]) -> dict[str, object]:
    asked = set(pairs)
    return {"exchanges": [pair[0] for pair in asked], "symbols": [pair[1] for pair in asked]}


def _row(aggregate: Aggregate) -> dict[str, object]:
    """The row in the form that `statements.WRITE` expects."""
    bar = msgspec.structs.asdict(aggregate.bar)
    return bar | {"exchange": aggregate.exchange, "symbol": aggregate.symbol, "end": aggregate.end}


def _bar(columns: Sequence[Any]) -> Bar:
    """The bar in the columns that statements.ROWS and statements.BUCKETS share."""
    count, small, large, lowest, highest, opened, open_time, closed, close_time = columns
    average = small
    if large is not None:
        average = min(max(small / count + large / count * _SCALE, lowest), highest)
    return Bar(count, average, lowest, highest, opened, open_time, 0, closed, close_time, 0)


def _moment(timestamp: int) -> datetime:
    """The exact time: timedelta uses integers. Raises OverflowError beyond the years 1 to 9999."""
    return _EPOCH + timedelta(milliseconds=timestamp)


def _limit(timestamp: int) -> datetime:
    """The same for the limit of a search, clamped to the years 1 to 9999."""
    return _moment(min(max(timestamp, _EARLIEST), _LATEST))
