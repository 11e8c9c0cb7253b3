"""What a node of a cluster has of Redis: a window for each of its terms, questions, and the changes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from marketflow.adapters.cache.changes import RedisChanges
from marketflow.adapters.cache.cluster import ClusterServers
from marketflow.adapters.cache.redirects import Address
from marketflow.adapters.cache.servers import OneServer, Servers
from marketflow.adapters.cache.split import SplitReading
from marketflow.adapters.cache.term_window import TermWindow
from marketflow.adapters.cache.url import access_of
from marketflow.app.ports import Term


class NodeRedis:
    """Use `open_node_redis`, which closes its connections."""

    def __init__(self, servers: Servers, *, window_length: int) -> None:
        """The window's length in ms."""
        self.reading = SplitReading(servers)
        """Answers questions about all exchanges."""
        self.changes = RedisChanges(servers)
        self._servers = servers
        self._window_length = window_length

    @property
    def redirects(self) -> Mapping[str, int]:
        """How often a server of a cluster has sent us elsewhere, by the kind of its answer."""
        return {direction.value: number for direction, number in self._servers.redirects.items()}

    @asynccontextmanager
    async def window(self, term: Term, confirmed: Callable[[], bool]) -> AsyncIterator[TermWindow]:
        """The window of a term, which writes on a connection of its own. Connects with the first call.

        `confirmed`: whether the database has said that the term is ours, and its word still holds.
        """
        window = TermWindow(term, self._servers, confirmed, window_length=self._window_length)
        try:
            yield window
        finally:
            window.close()


@asynccontextmanager
async def open_node_redis(
    url: str, nodes: Sequence[Address] = (), *, window_length: int, timeout: float
) -> AsyncIterator[NodeRedis]:
    """A single Redis, or a Redis Cluster. Connects with the first call; closes all connections on leaving.

    Args:
        url: `redis://`, `rediss://` or `unix://`. With `nodes`, only its options count: user, password, TLS.
        nodes: some servers of a Redis Cluster. Without any, a single Redis is at the URL.
        window_length: ms.
        timeout: seconds that a server has to connect, and to answer.

    Raises:
        ValueError: the URL is not of that form, or not one for a cluster.
    """
    access = access_of(url, timeout)
    servers = ClusterServers(access, nodes) if nodes else OneServer(access)
    try:
        yield NodeRedis(servers, window_length=window_length)
    finally:
        servers.close()
