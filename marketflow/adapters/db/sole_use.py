"""The database while what a single service or a cluster has in Redis is moved: nobody else may use it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio

from marketflow.adapters.db import statements
from marketflow.adapters.db.database import Database
from marketflow.adapters.db.last_use import Use, note_move
from marketflow.adapters.db.leases import PostgresLeases
from marketflow.adapters.db.lock import LOCK, Lock
from marketflow.app.ports import StoreTaken, Term
from marketflow.app.share.rivals import LEASE_PATIENCE

LOOK_SECONDS: Final = 0.2
"""How often it is looked whether another service has ended."""


class SoleUse:
    """The lock of the database, which neither nodes nor another service can have meanwhile."""

    def __init__(self, database: Database, lease_ttl: int) -> None:
        self._database = database
        self._leases = PostgresLeases(renewing=database.writing, taking=database.writing)
        self._lease_ttl = lease_ttl

    async def take(self) -> Mapping[str, Term]:
        """Take the lock, and wait until no lease is good; returns the last term of each exchange.

        A node that was killed had the lock until the server has noticed, and its leases until they expire.

        Raises:
            StoreAway, StoreUnfit
            StoreTaken: a service or a node still runs after 10 s.
        """
        deadline = trio.current_time() + LEASE_PATIENCE
        while True:
            try:
                sight = await self._leases.look()
            except StoreTaken:
                if trio.current_time() > deadline:
                    raise
                await trio.sleep(LOOK_SECONDS)
                continue
            # A lease that ends later than one which is renewed now is of before a step of the clock.
            live = [
                f"{each.node} has {exchange}"
                for exchange, each in sight.leases.items()
                if not each.released and 0 < each.left <= self._lease_ttl
            ]
            if not live:
                return {exchange: each.term for exchange, each in sight.leases.items()}
            if trio.current_time() > deadline:
                raise StoreTaken(f"nodes of a cluster are running on this database: {', '.join(live)}")
            await trio.sleep(LOOK_SECONDS)

    async def spooled(self) -> Sequence[tuple[int, str]]:
        """What terms have left here: the number of each row, and its bars in the form of a spool's file.

        Raises:
            StoreAway, StoreUnfit, StoreTaken: as `moved`.
        """
        _, found = await self._database.lease(
            lambda connection: connection.execute(statements.ALL_SPOOLED).fetchall()
        )
        return [(number, bars) for number, bars in found]

    async def unspool(self, numbers: Sequence[int]) -> None:
        """Remove these rows.

        Raises:
            StoreAway, StoreUnfit, StoreTaken: as `moved`.
        """
        parameters = [list(numbers)]
        await self._database.lease(lambda connection: connection.execute(statements.UNSPOOL, parameters))

    async def moved(self, use: Use) -> None:
        """Note that they have all now. The lock must still be ours.

        Raises:
            StoreAway, StoreUnfit
            StoreTaken: the lock is another's now.
        """
        await self._database.lease(lambda connection: note_move(connection, use))


@asynccontextmanager
async def open_sole_use(dsn: str, *, interval: int, timeout: float, lease_ttl: int) -> AsyncIterator[SoleUse]:
    """Connects with the first call; on leaving, the lock is given back.

    Args:
        dsn: where the database is.
        interval: of the aggregates, in ms.
        timeout: of a call, in seconds.
        lease_ttl: how long (ms) a lease of a node lasts.

    Raises:
        ValueError: the dsn is not valid.
    """
    database = Database(dsn, interval=interval, timeout=timeout, lock=Lock(LOCK, moving=True))
    try:
        yield SoleUse(database, lease_ttl)
    finally:
        with trio.CancelScope(shield=True):
            await database.close()
