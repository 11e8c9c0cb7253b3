"""Decides what an error of PostgreSQL or psycopg means: the rows are refused, or the store is away.

An error of a write on a connection that can still be used means that these rows are refused, with any
SQLSTATE, since triggers may raise their own codes. An error about the server itself means that the store is
away.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
import trio
from psycopg.pq import TransactionStatus

from marketflow.app.ports import StoreAway

# Errors about the server itself: connection (08), authorization (28), rollback because of other transactions
# (40), resources (53), operator or time limit (57), system (58), configuration (F0).
_ITSELF: Final = frozenset({"08", "28", "40", "53", "57", "58", "F0"})
# Read-only (a standby, a full disk), and objects that others have locked.
_ITS_STATE: Final = frozenset({"25006", "55P03", "55006"})
# Errors that only values of rows can cause: cardinality (21), data (22), constraints (23), a view's check
# (44), a trigger (P0).
_VALUES: Final = frozenset({"21", "22", "23", "44", "P0"})


class NoAnswer(StoreAway):
    """It is unknown whether the server will answer."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise NoAnswer if the block takes longer."""
    with trio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise NoAnswer(f"no answer within {seconds:g} s")


def usable(connection: psycopg.Connection) -> bool:
    """Whether the connection is open and has no open transaction."""
    return not connection.closed and connection.info.transaction_status is TransactionStatus.IDLE


def may_be_refusal(error: psycopg.Error, connection: psycopg.Connection) -> bool:
    """Whether the error of a write may be about its rows."""
    if not usable(connection):
        return False
    state = error.sqlstate
    if state is None:  # raised by psycopg itself
        return not isinstance(error, psycopg.OperationalError)
    return state[:2] not in _ITSELF and state not in _ITS_STATE


def is_of_values(error: psycopg.Error) -> bool:
    """Whether such an error can only be about rows. Other errors may also be about the table."""
    return (error.sqlstate or "")[:2] in _VALUES


def reason(error: BaseException, password: str | None = None) -> str:
    """The error in one line, without the password."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, psycopg.Error):
        if error.sqlstate is not None:
            text = f"{text} (SQLSTATE {error.sqlstate})"
    elif not isinstance(error, OSError):
        text = f"unexpected {type(error).__name__}: {text}"
    return text.replace(password, "***") if password else text
