"""The leases of a cluster: rows in PostgreSQL, which only its own clock expires."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import psycopg
from psycopg.rows import TupleRow

from marketflow.adapters.db import statements
from marketflow.adapters.db.locked_session import LockedSession
from marketflow.app.ports import FORGOTTEN, ClusterSight, Node, SeenLease, SeenNode, Term, WantedMode
from marketflow.domain.modes import Mode


class PostgresLeases:
    """Fills the port `Leases`. `beat` takes two round trips, every other call one.

    Each statement is a transaction of its own and is sent as a whole. So a node that stops leaves no lock.
    A take waits for rows that are being written under the term before. So it has a session of its own, and
    renewals wait neither for rows nor for takes.
    """

    def __init__(self, *, renewing: LockedSession, taking: LockedSession) -> None:
        self._renewing: Final = renewing
        self._taking: Final = taking

    async def look(self) -> ClusterSight:
        """See the port."""
        return await self._renewing.run(
            lambda connection: _sight_of(connection.execute(statements.SIGHT).fetchone())
        )

    async def beat(self, node: Node, terms: Collection[Term], lasts: int) -> ClusterSight:
        """See the port."""
        parameters = _of_node(node) | _of_terms(terms) | {"lasts": lasts, "forgotten": FORGOTTEN}

        def beat(connection: psycopg.Connection) -> ClusterSight:
            # Two transactions: in one, a client that stops between the statements would keep its rows locked,
            # and nobody could take them. A lease that another node takes meanwhile is not renewed, and the
            # second statement reads who has it: the first one could only tell what was before.
            connection.execute(statements.BEAT, parameters)
            return _sight_of(connection.execute(statements.SIGHT).fetchone())

        return await self._renewing.run(beat)

    async def take(
        self, term: Term, node: Node, lasts: int, after: Term | None, generation: int | None = None
    ) -> bool:
        """See the port."""
        parameters = _of_node(node) | {
            "exchange": term.exchange,
            "epoch": term.epoch,
            "term": term.id,
            "lasts": lasts,
            "last_epoch": None if after is None else after.epoch,
            "last_term": None if after is None else after.id,
            "generation": generation,
        }

        def take(connection: psycopg.Connection) -> bool:
            statement = statements.TAKE_FIRST if after is None else statements.TAKE_AFTER
            return connection.execute(statement, parameters).rowcount == 1

        return await self._taking.run(take)

    async def release(self, terms: Collection[Term]) -> None:
        """See the port."""
        await self._renewing.run(lambda connection: connection.execute(statements.RELEASE, _of_terms(terms)))

    async def found(self, mode: Mode) -> None:
        """See the port."""
        await self._renewing.run(lambda connection: connection.execute(statements.FOUND, {"mode": mode}))

    async def switch(self, mode: Mode, generation: int) -> bool:
        """See the port. It waits for takes, and so uses their session."""
        parameters = {"mode": mode, "generation": generation}
        return await self._taking.run(
            lambda connection: connection.execute(statements.SWITCH, parameters).rowcount == 1
        )

    async def leave(self, node: Node) -> None:
        """See the port."""
        await self._renewing.run(lambda connection: connection.execute(statements.LEAVE, _of_node(node)))


def _of_node(node: Node) -> dict[str, Any]:
    return {
        "node": node.name,
        "boot": node.boot,
        "url": node.url,
        "role": node.role,
        "version": node.version,
        "leaving": node.leaving,
        "ready": list(node.ready),
    }


def _of_terms(terms: Collection[Term]) -> dict[str, Any]:
    return {
        "exchanges": [term.exchange for term in terms],
        "epochs": [term.epoch for term in terms],
        "terms": [term.id for term in terms],
    }


def _sight_of(row: TupleRow | None) -> ClusterSight:
    """What `statements.SIGHT` has returned."""
    now, leases, nodes, wanted = row or (0, [], [], None)
    return ClusterSight(
        now=now,
        leases={
            exchange: SeenLease(Term(exchange, epoch, term), node, boot, left, since, released)
            for exchange, epoch, term, node, boot, left, since, released in leases
        },
        nodes={
            name: SeenNode(Node(name, boot, url, role, version, leaving, tuple(ready)), age)
            for name, boot, url, role, version, leaving, ready, age in nodes
        },
        wanted=None if wanted is None else WantedMode(*wanted),
    )
