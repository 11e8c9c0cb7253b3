"""Aggregates in PostgreSQL, for a service that is alone on it: nothing is written without the lock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import psycopg

from marketflow.adapters.db import row_writes, statements
from marketflow.adapters.db.database import Database
from marketflow.adapters.db.lock import Lock, lock_of
from marketflow.adapters.db.migrations import SchemaTooNew
from marketflow.adapters.db.rows import check_parameters
from marketflow.app.ports import ALL, Aggregate, RowBars, Scope
from marketflow.domain.periods import Span
from marketflow.domain.prices import Pair, PriceUpdate

__all__ = ["PostgresStore", "SchemaTooNew"]


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
        self._database = Database(dsn, interval=interval, timeout=timeout, lock=Lock(lock_of(scope)))
        self._interval = interval
        self._scope = scope

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock and close all connections; takes at most a second."""
        await self._database.close()

    @property
    def threads(self) -> int:
        """The number of threads in use, including abandoned ones."""
        return self._database.threads

    async def lease(self) -> int:
        """See the port.

        Raises:
            SchemaTooNew: the database was migrated by a newer marketflow.
        """
        number, _ = await self._database.lease(lambda _: None)
        return number

    async def write(self, aggregates: Sequence[Aggregate]) -> None:
        """See the port."""
        parameters = check_parameters(self._interval) | {"rows": row_writes.encoded(aggregates)}

        def write(connection: psycopg.Connection) -> None:
            row_writes.write(connection, statements.WRITE, parameters)

        await self._database.writing.run_connected(write)

    async def delete_before(self, end: int) -> int:
        """See the port."""
        parameters = row_writes.deletion(end, self._scope)

        def delete(connection: psycopg.Connection) -> int:
            return row_writes.delete(connection, statements.DELETE, parameters).rowcount

        return await self._database.writing.run_connected(delete)

    async def bars(self, pairs: Sequence[Pair], span: Span, width: int) -> RowBars:
        """See the port. Pairs without rows are left out; the lock is not needed."""
        return await self._database.rows.bars(pairs, span, width)

    async def skip(
        self, pairs: Sequence[Pair], span: Span, rows: int, *, backwards: bool = False
    ) -> int | None:
        """See the port. The lock is not needed."""
        return await self._database.rows.skip(pairs, span, rows, backwards=backwards)

    async def newest(self, pairs: Sequence[Pair]) -> Mapping[Pair, PriceUpdate]:
        """See the port. The lock is not needed."""
        return await self._database.rows.newest(pairs)
