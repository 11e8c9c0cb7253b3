"""The keys of a cluster while they are copied: each exchange has a fence that is no node's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from marketflow.adapters.cache.cluster import ClusterServers
from marketflow.adapters.cache.fenced import FencedWriter, Transaction
from marketflow.adapters.cache.keys import TAGGED
from marketflow.adapters.cache.pairs import find_pairs
from marketflow.adapters.cache.redirects import Address
from marketflow.adapters.cache.resp import Command, pack_commands
from marketflow.adapters.cache.routing import RoutedReaders
from marketflow.adapters.cache.servers import OneServer, Servers
from marketflow.adapters.cache.url import access_of
from marketflow.app.ports import NEVER, Scope, StoreAway, StoreUnfit, Term
from marketflow.app.share.fence import Seen, fence_of, seen
from marketflow.domain.prices import Pair

T = TypeVar("T")

MOVER: Final = "moving"
"""Stands in a fence where the id of a term stands. No term has it."""


class ClusterSide:
    """Fills `Side` for sealed exchanges. Use `open_cluster_side`, which closes its connections."""

    keys: Final = TAGGED

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._writers: dict[str, FencedWriter] = {}
        """By exchange, once it is sealed."""

    async def seal(self, exchange: str, last: Term | None) -> None:
        """Let no term write any more, and be the one who does. Nodes take the exchange after that as ever.

        `last` is the last term of the exchange that the database knows. If the window does not know it, the
        two belong to different clusters, which may both have taken in the same updates.

        Raises:
            StoreAway
            StoreUnfit: the data there is another cluster's.
        """
        term = Term(exchange, NEVER if last is None else last.epoch, MOVER)
        # Without the database's word: if the slot is moved meanwhile, it has to be run again.
        writer = self._writers[exchange] = FencedWriter(term, self._servers, lambda: False)
        found, _ = await writer.look()
        if not writer.watched:
            await self._check(exchange, found, last)
            if not await writer.take(found):
                raise StoreAway(f"{exchange} was taken by a node meanwhile")

    async def _check(self, exchange: str, found: bytes | None, last: Term | None) -> None:
        fence = None if found is None else found.decode(errors="replace")
        if fence is None:
            unknown = bool(await self.pairs([exchange]))
        else:
            unknown = last is None or seen(fence, last) is Seen.LATER
        if unknown:
            known = "none" if last is None else fence_of(last)
            raise StoreUnfit(
                f"the cluster's Redis has data of {exchange} from nodes with another database: the last term"
                f" is {fence or 'unknown'} there, and {known} here. Use their database, or another Redis"
            )

    async def pairs(self, exchanges: Sequence[str]) -> Sequence[Pair]:
        """See `Side`."""
        found: list[Pair] = []
        for exchange in exchanges:
            found += await find_pairs(self._asking(exchange), TAGGED, Scope(frozenset({exchange})))
        return found

    async def read(self, exchange: str, commands: Sequence[Command], read: Callable[[list[Any]], T]) -> T:
        """See `Side`."""
        return await self._asking(exchange).read(commands, read)

    async def write(self, exchange: str, commands: Sequence[Command]) -> None:
        """See `Side`. The exchange must be sealed."""
        writer = self._writers[exchange]
        await writer.send(Transaction([pack_commands(commands)], len(commands)))
        await writer.receive()

    def _asking(self, exchange: str) -> RoutedReaders:
        return RoutedReaders(self._servers, exchange)

    def close(self) -> None:
        """Close the connections that write."""
        for writer in self._writers.values():
            writer.close()


@asynccontextmanager
async def open_cluster_side(
    url: str, nodes: Sequence[Address], *, timeout: float
) -> AsyncIterator[ClusterSide]:
    """The Redis of a cluster, as `open_node_redis` has it. Connects with the first call.

    Raises:
        ValueError: the URL is not of that form, or not one for a cluster.
    """
    access = access_of(url, timeout)
    servers = ClusterServers(access, nodes) if nodes else OneServer(access)
    try:
        side = ClusterSide(servers)
        try:
            yield side
        finally:
            side.close()
    finally:
        servers.close()
