"""Aggregates in PostgreSQL: one connection that writes and has the lock, and a few that read.

The lock belongs to the writing connection and is taken while connecting. So being connected and being the
only service on the stores is one state, and nothing is written without the lock. It needs PostgreSQL 14 or
newer, without a transaction pooler in between, since the lock belongs to the session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Self, TypeVar

import msgspec
import psycopg
import trio

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
from marketflow.adapters.db.rows import StoredRows, check_parameters, limit_of
from marketflow.adapters.db.session import Session
from marketflow.adapters.db.verdicts import NoAnswer, is_of_values, may_be_refusal
from marketflow.app.ports import (
    ALL,
    Aggregate,
    IntervalMismatch,
    RowBars,
    RowsRefused,
    Scope,
    StoreAway,
    StoreTaken,
    StoreUnfit,
)
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
        readers = Readers([Session(reading, timeout=timeout) for _ in range(READERS)], timeout)
        self._stored = StoredRows(readers, interval)
        self._scope = scope
        self._backend: Backend | None = None
        """The server process that last had the lock for us."""
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
        self._stored.readers.close()

    @property
    def _lock(self) -> int:
        return lock_of(self._scope)

    @property
    def threads(self) -> int:
        """The number of threads in use, including abandoned ones."""
        return self._writing.threads + self._stored.readers.threads

    async def lease(self) -> int:
        """See the port.

        Raises:
            SchemaTooNew: the database was migrated by a newer marketflow.
        """
        connections = self._writing.connections
        try:
            held = await self._writing.run(self._holds)
        except NoAnswer as error:
            self._stored.hangs = str(error)
            raise
        except StoreAway:
            self._stored.hangs = None
            self._borrow()
            raise
        self._stored.hangs = None
        if not held:
            # The next connection will find the reason, and whether another service used the store meanwhile.
            self._writing.close()
            raise StoreAway("the server has taken the lock from our connection, perhaps a pooler has")
        if self._writing.connections != connections:
            # Another server may have taken over. Connections to the former one may answer with older rows.
            self._stored.readers.renew()
        return self._writing.connections

    def _holds(self, connection: psycopg.Connection) -> bool:
        return self._backend is not None and holds(connection, self._lock, self._backend)

    def _borrow(self) -> None:
        """If the server refuses the writing connection, let the next call use a reader's connection.

        This is done rarely: the refusal may have other reasons, and questions lose that reader.
        """
        if self._writing.connected or trio.current_time() < self._next_loan:
            return
        if any(self._writing.take_over(session) for session in self._stored.readers.spare()):
            self._next_loan = trio.current_time() + LOAN_SECONDS

    async def write(self, aggregates: Sequence[Aggregate]) -> None:
        """See the port."""
        try:
            rows = msgspec.json.encode([_row(aggregate) for aggregate in aggregates]).decode()
        except (ValueError, TypeError, OverflowError) as error:
            raise RowsRefused(f"{type(error).__name__}: {error}") from error
        parameters = check_parameters(self._interval)

        def write(connection: psycopg.Connection) -> None:
            try:
                connection.execute(statements.WRITE, parameters | {"rows": rows})
            except psycopg.Error as error:
                if not may_be_refusal(error, connection):
                    raise
                if not is_of_values(error):
                    # If the table is the cause, such as a missing column, it fails without rows, too.
                    connection.execute(statements.WRITE, parameters | {"rows": "[]"})
                raise _refusal(error) from error

        await self._writing.run(write, connect=False)

    async def delete_before(self, end: int) -> int:
        """See the port."""
        exchanges = self._scope.exchanges
        parameters = {
            "limit": limit_of(end),
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

    async def bars(self, pairs: Sequence[Pair], span: Span, width: int) -> RowBars:
        """See the port. Pairs without rows are left out; the lock is not needed."""
        return await self._stored.bars(pairs, span, width)

    async def skip(
        self, pairs: Sequence[Pair], span: Span, rows: int, *, backwards: bool = False
    ) -> int | None:
        """See the port. The lock is not needed."""
        return await self._stored.skip(pairs, span, rows, backwards=backwards)

    async def newest(self, pairs: Sequence[Pair]) -> Mapping[Pair, PriceUpdate]:
        """See the port. The lock is not needed."""
        return await self._stored.newest(pairs)

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
        self._stored.made = True
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


def _row(aggregate: Aggregate) -> dict[str, object]:
    """The row in the form that `statements.WRITE` expects."""
    row = msgspec.structs.asdict(aggregate.bar)
    if (traded := row.pop("traded")) is not None:
        row |= msgspec.structs.asdict(traded) | {"volume": traded.volume}
    return row | {"exchange": aggregate.exchange, "symbol": aggregate.symbol, "end": aggregate.end}
