"""Where the Redis of an exchange is: on the only server, or on one of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import attrs

from marketflow.adapters.cache.connections import Readers
from marketflow.adapters.cache.failures import Failures
from marketflow.adapters.cache.opening import Opener
from marketflow.adapters.cache.redirects import Direction
from marketflow.adapters.cache.resp import ErrorReply
from marketflow.adapters.cache.url import Access
from marketflow.app.ports import StoreRefuses


@attrs.frozen(eq=False)
class Server:
    """One Redis server."""

    opener: Opener
    """Makes connections to it."""
    readers: Readers
    """Those that read from it."""


def server_at(access: Access, failures: Failures) -> Server:
    """A server. Nothing is connected yet."""
    opener = Opener(access, failures)
    return Server(opener, Readers(opener, failures, access.timeout))


class Servers(Protocol):
    """The servers, and which of them has which exchange. Its awaited methods raise StoreAway."""

    @property
    def failures(self) -> Failures:
        """What any of them can fail with."""
        ...

    @property
    def timeout(self) -> float:
        """Seconds for the replies to a request."""
        ...

    @property
    def redirects(self) -> Mapping[Direction, int]:
        """How often a server has sent us elsewhere."""
        ...

    async def of(self, exchange: str) -> Server:
        """The server that has this exchange, as far as is known."""
        ...

    def doubt(self) -> None:
        """A request to a server has failed: another one may have its exchanges by now."""
        ...

    async def follow(self, server: Server, error: ErrorReply) -> Server:
        """The server to ask next, after this one has answered with an error that sends us elsewhere.

        It may be the same one, a moment later. After `ASK` it is the one that is to be asked with `ASKING`,
        once; after any other error, it is the one that `of` gives from now on.

        Raises:
            StoreRefuses: there is no other server.
            StoreAway: the server cannot serve the exchange, and nobody knows who can.
        """
        ...


class OneServer:
    """Fills the port with a single server."""

    def __init__(self, access: Access) -> None:
        self.failures = Failures(access.secrets)
        self.timeout = access.timeout
        self.redirects: Mapping[Direction, int] = {}
        self._server = server_at(access, self.failures)

    async def of(self, _: str) -> Server:
        """The only one."""
        return self._server

    def doubt(self) -> None:
        """There is no other."""

    async def follow(self, _: Server, error: ErrorReply) -> Server:
        """There is no other: it is a server of a cluster, and its address stands where that of one should."""
        raise StoreRefuses(self.failures.reason(error))

    def close(self) -> None:
        """Close the connections that nobody uses."""
        self._server.readers.close()
