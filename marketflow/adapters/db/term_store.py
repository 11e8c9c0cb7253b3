"""Aggregates in PostgreSQL, for a term of a cluster: rows are written only while it is the last one.

The lease of the term is checked by the statement that writes the rows. No lock belongs to the term: a
connection that is lost and made again takes nothing from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import attrs
import psycopg

from marketflow.adapters.db import row_writes, statements
from marketflow.adapters.db.database import Database
from marketflow.adapters.db.rows import check_parameters
from marketflow.app.ports import FORGOTTEN, NEVER, Aggregate, Fenced, RowBars, Scope, StoreAway, Term
from marketflow.domain.periods import Span
from marketflow.domain.prices import Pair, PriceUpdate

T = TypeVar("T")


@attrs.frozen
class LastTerm:
    """The last term of an exchange, as the database has it."""

    epoch: int
    id: str
    released: bool


class TermStore:
    """Fills the port `AggregateStore` for one term. It needs no closing."""

    def __init__(self, database: Database, term: Term, *, interval: int, clears: bool = True) -> None:
        """`interval` of the aggregates in ms; `clears`: it may delete rows of exchanges that nobody has."""
        self.term: Final = term
        self._database = database
        self._interval = interval
        self._clears = clears
        self._number = 0
        """The connection over which `lease` has found the term last; 0: none."""

    async def lease(self) -> int:
        """See the port. The number changes with each new connection: it may lead to another server.

        Raises:
            Fenced: the term is not the last one of its exchange, or was given back.
        """
        number, last = await self._database.lease(self._last)
        if not self._is_ours(last):
            raise self._fenced(last)
        self._number = number
        return number

    async def write(self, aggregates: Sequence[Aggregate]) -> None:
        """See the port."""
        if strange := {row.exchange for row in aggregates} - {self.term.exchange}:
            raise ValueError(f"rows of {', '.join(sorted(strange))} under a term of {self.term.exchange}")
        rows = {"rows": row_writes.encoded(aggregates)}
        parameters = check_parameters(self._interval) | self._held | rows

        def write(connection: psycopg.Connection) -> None:
            found = row_writes.write(connection, statements.WRITE_HELD, parameters).fetchone()
            self._check(connection, held=found == (True,))

        await self._run(write)

    async def delete_before(self, end: int) -> int:
        """See the port. One term of the cluster also deletes rows of exchanges that nobody has.

        It is the one whose exchange comes first, so that no two wait for each other.
        """
        scope = Scope(frozenset({self.term.exchange}))
        parameters = row_writes.deletion(end, scope) | self._held

        def delete(connection: psycopg.Connection) -> int:
            others = self._others(connection) if self._clears else None
            wider = {} if others is None else {"exchanges": None, "others": others}
            found = row_writes.delete(connection, statements.DELETE_HELD, parameters | wider).fetchone()
            held, deleted = found or (False, 0)
            self._check(connection, held=held)
            return int(deleted)

        return await self._run(delete)

    async def bars(self, pairs: Sequence[Pair], span: Span, width: int) -> RowBars:
        """See the port. Pairs without rows are left out; the lease is not needed."""
        return await self._database.rows.bars(pairs, span, width)

    async def skip(
        self, pairs: Sequence[Pair], span: Span, rows: int, *, backwards: bool = False
    ) -> int | None:
        """See the port. The lease is not needed."""
        return await self._database.rows.skip(pairs, span, rows, backwards=backwards)

    async def newest(self, pairs: Sequence[Pair]) -> Mapping[Pair, PriceUpdate]:
        """See the port. The lease is not needed."""
        return await self._database.rows.newest(pairs)

    @property
    def _held(self) -> dict[str, object]:
        """The parameters of a statement that checks the lease."""
        return {
            "held_exchange": self.term.exchange,
            "held_epoch": self.term.epoch,
            "held_term": self.term.id,
        }

    async def _run(self, fn: Callable[[psycopg.Connection], T]) -> T:
        """Run `fn` over the connection on which the term was found.

        Another term of this node may have made a new one, perhaps to a server with older rows. So `lease` has
        to return its number first.
        """
        writing = self._database.writing

        def run(connection: psycopg.Connection) -> T:
            if writing.connections != self._number:
                raise StoreAway("the lease was not looked at over this connection")
            return fn(connection)

        return await writing.run_connected(run)

    def _check(self, connection: psycopg.Connection, *, held: bool) -> None:
        if not held:
            raise self._fenced(self._last(connection))

    def _others(self, connection: psycopg.Connection) -> list[str] | None:
        """The exchanges that others have; None unless ours comes before all of them."""
        asked = {"exchange": self.term.exchange, "forgotten": FORGOTTEN}
        row = connection.execute(statements.OTHERS, asked).fetchone()
        return None if row is None else row[0]

    def _last(self, connection: psycopg.Connection) -> LastTerm | None:
        row = connection.execute(statements.LAST_TERM, {"exchange": self.term.exchange}).fetchone()
        return None if row is None else LastTerm(*row)

    def _is_ours(self, last: LastTerm | None) -> bool:
        return last == LastTerm(self.term.epoch, self.term.id, released=False)

    def _fenced(self, last: LastTerm | None) -> Fenced:
        ours = f"term {self.term.epoch}:{self.term.id} of {self.term.exchange}"
        if last is None:
            return Fenced(f"the database knows no {ours}", NEVER)
        if (last.epoch, last.id) == (self.term.epoch, self.term.id):
            return Fenced(f"{ours} was given back", last.epoch)
        return Fenced(f"{ours} is over: the last one is {last.epoch}:{last.id}", last.epoch)
