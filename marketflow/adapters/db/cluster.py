"""PostgreSQL as a node of a cluster uses it: leases, the rows of all its terms, and questions.

```
 ClusterDatabase
  ├─ leases           two sessions: one renews and looks, one takes. Neither waits for rows of this node
  ├─ store(term)      for each term. They share one session that writes
  └─ rows             questions, over a few sessions that all share
```
Every session that writes has the lock of the database, which all nodes share.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Final, Self

import trio

from marketflow.adapters.db.database import Database
from marketflow.adapters.db.leases import PostgresLeases
from marketflow.adapters.db.lock import LOCK, Lock
from marketflow.adapters.db.rows import StoredRows
from marketflow.adapters.db.term_spool import TermSpool
from marketflow.adapters.db.term_store import TermStore
from marketflow.app.ports import Term
from marketflow.app.share.spooling import SpooledBar


class ClusterDatabase:
    """One for each node. An async context manager; entering it does not connect.

    All calls are bounded, and only raise the errors of their ports.
    """

    def __init__(
        self,
        dsn: str,
        *,
        interval: int,
        timeout: float,
        lease_timeout: float,
        generated: Collection[str] = (),
    ) -> None:
        """Makes one that is not connected.

        Args:
            dsn: where the database is.
            interval: of the aggregates, in ms.
            timeout: of a call about rows, in seconds.
            lease_timeout: of a call about leases, in seconds. It must be less than a lease lasts, so that
                there is time to connect again and renew it.
            generated: exchanges that are generators. Their timestamps may be wrong, so they decide only about
                the age of their own rows.

        Raises:
            ValueError: the dsn is not valid.
        """
        self._interval = interval
        self._generated = frozenset(generated)
        self._database = Database(dsn, interval=interval, timeout=timeout, lock=Lock(LOCK, shared=True))
        self._renewing = self._database.session(lease_timeout)
        self._taking = self._database.session(lease_timeout)
        self.leases: Final = PostgresLeases(renewing=self._renewing, taking=self._taking)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock and close all connections; takes at most a second."""
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                for each in (self._renewing, self._taking, self._database):
                    nursery.start_soon(each.close)

    @property
    def threads(self) -> int:
        """The number of threads in use, including abandoned ones."""
        return sum(each.threads for each in (self._renewing, self._taking, self._database))

    @property
    def rows(self) -> StoredRows:
        """Answers questions about the rows of all exchanges. No lease is needed."""
        return self._database.rows

    def store(self, term: Term) -> TermStore:
        """The rows of a term."""
        clears = term.exchange not in self._generated
        return TermStore(self._database, term, interval=self._interval, clears=clears)

    def spool(
        self,
        term: Term,
        *,
        encode: Callable[[Sequence[SpooledBar]], bytes],
        decode: Callable[[bytes], Sequence[SpooledBar]],
    ) -> TermSpool:
        """The spool of a term, in the form of these functions."""
        return TermSpool(self._database, term, encode=encode, decode=decode)
