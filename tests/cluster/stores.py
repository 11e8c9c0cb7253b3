"""The stores of a stage, and the ways of its nodes to them, which a test can cut.

A node comes to a Redis Cluster through a proxy for each server, on a host of the loopback network that is
its own: 127.0.0.2, 127.0.0.3 and so on. The servers send it from one to another without naming a host, so it
stays with its proxies.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
)
from typing import Literal, Protocol

import attrs
import redis

from tests.cluster.cluster_servers import Cluster, exchanges_of
from tests.tcp_proxy import Proxy, proxy

Direction = Literal["requests", "answers", "refused"]
DIRECTIONS: tuple[Direction, ...] = ("requests", "answers", "refused")
"""One way, the other way, and both ways."""


@attrs.frozen
class Way:
    """The way of a node to a store."""

    proxies: Sequence[Proxy]
    settings: Mapping[str, str]
    """What the node has to know of it."""

    async def cut(self, direction: Direction) -> None:
        """Lose requests or answers, or refuse everything."""
        for each in self.proxies:
            if direction == "refused":
                each.refusing = True
                await each.drop()
            else:
                each.losing.value = direction

    def mend(self) -> None:
        """Whatever was held back goes on."""
        for each in self.proxies:
            each.refusing, each.losing.value = False, None


class Redis(Protocol):
    """One Redis, or a cluster."""

    def way(self, number: int) -> AbstractAsyncContextManager[Way]:
        """A way for the node of that number."""
        ...

    def client(self, exchange: str) -> AbstractContextManager[redis.Redis]:
        """A client of the server that has an exchange."""
        ...

    def exchanges(self, most: int) -> Sequence[str]:
        """Names of so many exchanges, in a cluster one for each master."""
        ...


@attrs.frozen
class OneRedis:
    """Fills Redis with a single server."""

    url: str

    @asynccontextmanager
    async def way(self, number: int) -> AsyncIterator[Way]:
        """See Redis."""
        del number
        async with proxy(self.url) as it:
            yield Way([it], {"REDIS__URL": it.url})

    def client(self, exchange: str) -> AbstractContextManager[redis.Redis]:
        """See Redis."""
        del exchange
        return redis.Redis.from_url(self.url)

    def exchanges(self, most: int) -> Sequence[str]:
        """See Redis."""
        return [f"exchange{number}" for number in range(1, most + 1)]


@attrs.frozen
class ManyRedis:
    """Fills Redis with a cluster of nameless servers."""

    cluster: Cluster

    @asynccontextmanager
    async def way(self, number: int) -> AsyncIterator[Way]:
        """See Redis."""
        host = f"127.0.0.{2 + number}"
        async with AsyncExitStack() as stack:
            proxies = [
                await stack.enter_async_context(proxy(member.url, host, member.port))
                for member in self.cluster.members
            ]
            nodes = [f"{host}:{member.port}" for member in self.cluster.members]
            yield Way(proxies, {"REDIS__NODES": json.dumps(nodes)})

    def client(self, exchange: str) -> AbstractContextManager[redis.Redis]:
        """See Redis."""
        return self.cluster.owner(exchange).client()

    def exchanges(self, most: int) -> Sequence[str]:
        """See Redis."""
        found = exchanges_of(self.cluster)
        assert len(found) == most
        return found


@asynccontextmanager
async def way_to_postgres(dsn: str) -> AsyncIterator[Way]:
    """A way to PostgreSQL."""
    async with proxy(dsn) as it:
        yield Way([it], {"POSTGRES__DSN": it.url})
