"""What an error of PostgreSQL or psycopg means: a refusal of the rows, or a store that is away.

An error of a write on a connection that can still be used is a refusal of these rows, with any SQLSTATE,
since triggers may raise their own codes. An error about the server itself means that the store is away.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
import trio
from psycopg.pq import TransactionStatus

from marketflow.app.ports import StoreAway

# What a server says about itself: connection (08), not let in (28), rolled back for others' sake (40), out of
# resources (53), stopped by an operator or a time limit (57), its system (58), its configuration (F0).
_ITSELF: Final = frozenset({"08", "28", "40", "53", "57", "58", "F0"})
# Read-only (a standby, a disk that filled up), and what others have locked.
_ITS_STATE: Final = frozenset({"25006", "55P03", "55006"})
# What only the values of rows bring about: cardinality (21), data (22), constraints (23), a view's check
# (44), a trigger (P0).
_VALUES: Final = frozenset({"21", "22", "23", "44", "P0"})


class NoAnswer(StoreAway):
    """It is unknown whether the server will answer."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise NoAnswer when what is inside takes longer."""
    with trio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise NoAnswer(f"no answer within {seconds:g} s")


def usable(connection: psycopg.Connection) -> bool:
    """Whether the connection is open, and no transaction is."""
    return not connection.closed and connection.info.transaction_status is TransactionStatus.IDLE


def may_be_refusal(error: psycopg.Error, connection: psycopg.Connection) -> bool:
    """Whether the error of a write may be about its rows."""
    if not usable(connection):
        return False
    state = error.sqlstate
    if state is None:  # of psycopg's own making
        return not isinstance(error, psycopg.OperationalError)
    return state[:2] not in _ITSELF and state not in _ITS_STATE


def is_of_values(error: psycopg.Error) -> bool:
    """Whether such an error can only be about rows. Others may be about the table as well."""
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
