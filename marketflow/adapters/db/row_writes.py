"""Writes and deletes rows of aggregates over one connection. All of it runs in threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, LiteralString

import msgspec
import psycopg
from psycopg.rows import TupleRow

from marketflow.adapters.db.rows import limit_of
from marketflow.adapters.db.verdicts import is_of_values, may_be_refusal
from marketflow.app.ports import Aggregate, RowsRefused, Scope

DELETED_AT_ONCE: Final = 10_000
"""The approximate number of rows in a deletion; rows that end at the same time are deleted together."""


def encoded(aggregates: Sequence[Aggregate]) -> str:
    """The rows as the parameter of a statement.

    Raises:
        RowsRefused: a value cannot be sent.
    """
    try:
        return msgspec.json.encode([_row(aggregate) for aggregate in aggregates]).decode()
    except (ValueError, TypeError, OverflowError) as error:
        raise RowsRefused(f"{type(error).__name__}: {error}") from error


def write(
    connection: psycopg.Connection, statement: LiteralString, parameters: Mapping[str, object]
) -> psycopg.Cursor[TupleRow]:
    """Run a statement that writes the parameter `rows`.

    Raises:
        RowsRefused: a row is at fault.
        psycopg.Error: the store is away.
    """
    try:
        return connection.execute(statement, parameters)
    except psycopg.Error as error:
        if not may_be_refusal(error, connection):
            raise
        if not is_of_values(error):
            # If the table is the cause, such as a missing column, it fails without rows, too.
            connection.execute(statement, {**parameters, "rows": "[]"})
        raise _refusal(error) from error


def delete(
    connection: psycopg.Connection, statement: LiteralString, parameters: Mapping[str, object]
) -> psycopg.Cursor[TupleRow]:
    """Run a statement that deletes rows. Raises as `write`."""
    try:
        return connection.execute(statement, parameters)
    except psycopg.Error as error:
        if not may_be_refusal(error, connection):
            raise
        raise _refusal(error) from error


def deletion(end: int, scope: Scope) -> dict[str, Any]:
    """The parameters of a statement that deletes some of the scope's rows that end before `end` (ms)."""
    exchanges = scope.exchanges
    return {
        "limit": limit_of(end),
        "rows": DELETED_AT_ONCE,
        "exchanges": None if exchanges is None else list(exchanges),
        "others": [],
    }


def _refusal(error: psycopg.Error) -> RowsRefused:
    text = error.diag.message_primary or str(error)
    return RowsRefused(text if is_of_values(error) else f"{text} (SQLSTATE {error.sqlstate})")


def _row(aggregate: Aggregate) -> dict[str, object]:
    """The row in the form that `statements.WRITE` expects."""
    row = msgspec.structs.asdict(aggregate.bar)
    if (traded := row.pop("traded")) is not None:
        row |= msgspec.structs.asdict(traded) | {"volume": traded.volume}
    return row | {"exchange": aggregate.exchange, "symbol": aggregate.symbol, "end": aggregate.end}
