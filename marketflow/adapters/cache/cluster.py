"""The servers of a Redis Cluster: a map of its slots, read from any of them, and again after each failure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import attrs
import structlog
import trio

from marketflow.adapters.cache.failures import Failures
from marketflow.adapters.cache.redirects import PAUSE_SECONDS, Address, Direction, direction_of, target_of
from marketflow.adapters.cache.resp import ErrorReply
from marketflow.adapters.cache.servers import Server, server_at
from marketflow.adapters.cache.slots import SlotMap, slot_of
from marketflow.adapters.cache.url import Access, TcpPlace
from marketflow.app.ports import StoreAway, StoreUnfit

log = structlog.get_logger()

READ_EVERY: Final = 0.1
"""How often (seconds) the map is read at most."""
_COVERAGE: Final = "cluster-require-full-coverage"
_NO_CLUSTER: Final = "cluster support disabled"


class Nodes:
    """The servers by their addresses. They are made when needed, and kept."""

    def __init__(self, access: Access) -> None:
        """`access`: how to speak to each. Its place says only whether TLS is used.

        Raises:
            ValueError: it leads to a Unix socket, or to another database than the first.
        """
        if not isinstance(access.place, TcpPlace):
            raise ValueError("a Redis Cluster is not on a Unix socket")  # noqa: TRY004 - a wrong URL
        if any(command[0] == "SELECT" for command in access.greeting):
            raise ValueError("a Redis Cluster has only one database, 0")
        self.failures: Final = Failures(access.secrets)
        self.timeout: Final = access.timeout
        self._access = access
        self._place = access.place
        self._made: dict[Address, Server] = {}

    def at(self, address: Address) -> Server:
        """The server there."""
        if address not in self._made:
            place = attrs.evolve(self._place, host=address.host, port=address.port)
            access = attrs.evolve(self._access, place=place)
            self._made[address] = server_at(access, self.failures)
        return self._made[address]

    def close(self) -> None:
        """Close the connections that nobody uses."""
        for server in self._made.values():
            server.readers.close()


class ClusterServers:
    """Fills the port Servers with a Redis Cluster."""

    def __init__(self, access: Access, seeds: Sequence[Address]) -> None:
        """`seeds`: some of its servers; the others are found through them. ValueError: see `Nodes`."""
        self.redirects: Final = Counter(dict.fromkeys((Direction.MOVED, Direction.ASK, Direction.LATER), 0))
        """See the port."""
        self._nodes = Nodes(access)
        self._seeds = tuple(seeds)
        self._map: SlotMap | None = None
        self._doubted = True
        """Whether the map may be out of date."""
        self._turn = trio.Lock()
        self._tried_at = -math.inf
        """When the map was read, or could not be read, the last time."""

    @property
    def failures(self) -> Failures:
        """See the port."""
        return self._nodes.failures

    @property
    def timeout(self) -> float:
        """See the port."""
        return self._nodes.timeout

    async def of(self, exchange: str) -> Server:
        """The owner of its slot.

        Raises:
            StoreAway
            StoreUnfit: at first: it is no cluster, or would stop as a whole when a part of it is away.
        """
        slot = slot_of(exchange)
        owner = (await self._current()).owner(slot)
        if owner is None:
            self._doubted = True
            raise StoreAway(f"no server of the cluster has slot {slot}, which {exchange} needs")
        return self._nodes.at(owner)

    def doubt(self) -> None:
        """Read the map again before it is used again."""
        self._doubted = True

    async def follow(self, server: Server, error: ErrorReply) -> Server:
        """See the port. `MOVED` names the new owner, so that the map need not be read."""
        direction = direction_of(error)
        if direction is None or direction is Direction.AWAY:
            self._doubted = True
            raise self.failures.away(error)
        self.redirects[direction] += 1
        if direction in {Direction.MOVED, Direction.ASK}:
            with self.failures.translated():
                slot, address = target_of(error)
                if not address.host:
                    address = attrs.evolve(address, host=server.opener.host)
            if direction is Direction.MOVED and not (await self._current()).moved(slot, address):
                await trio.sleep(PAUSE_SECONDS)  # Two servers may send us to each other for a while.
            return self._nodes.at(address)
        await trio.sleep(PAUSE_SECONDS)
        return server

    async def _current(self) -> SlotMap:
        """The map, read again if it is in doubt. Tasks that want it at the same time share one reading."""
        if self._map is not None and not self._doubted:
            return self._map
        asked_at = trio.current_time()
        async with self._turn:
            if self._map is not None and (
                not self._doubted or trio.current_time() < self._tried_at + READ_EVERY
            ):
                return self._map
            if self._tried_at >= asked_at:
                raise StoreAway("no server of the cluster has answered another question meanwhile")
            try:
                found = await self._read()
                if self._map is None:
                    await self._check_coverage(found)
            finally:
                self._tried_at = trio.current_time()
            self._map, self._doubted = found, False
            return found

    async def _read(self) -> SlotMap:
        """Ask all servers that are known; the first good answer counts."""
        known = () if self._map is None else self._map.servers
        found: list[SlotMap] = []
        errors: list[StoreAway] = []

        async def ask(address: Address) -> None:
            try:
                found.append(await self._asked(address))
            except StoreAway as error:
                errors.append(error)
            else:
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for address in dict.fromkeys((*known, *self._seeds)):
                nursery.start_soon(ask, address)
        if found:
            return found[0]
        # Later it is the address of a server that is gone, and has another one by now.
        if self._map is None and any(_NO_CLUSTER in str(error) for error in errors):
            raise StoreUnfit("redis.nodes: a server there belongs to no Redis Cluster")
        raise errors[0]

    async def _asked(self, address: Address) -> SlotMap:
        commands = [("CLUSTER", "SLOTS"), ("CLUSTER", "INFO")]
        return await self._nodes.at(address).readers.read(commands, partial(_map_of, address.host))

    async def _check_coverage(self, found: SlotMap) -> None:
        """Check the setting of each server that has slots; what cannot be asked is not checked.

        Raises:
            StoreUnfit: with full coverage required, the loss of one shard would stop all.
        """
        for address in found.owners:
            try:
                command = ("CONFIG", "GET", _COVERAGE)
                required = await self._nodes.at(address).readers.read([command], _says_yes)
            except StoreAway as error:
                log.warning("cluster setting not checked", setting=_COVERAGE, error=str(error))
                continue
            if required:
                raise StoreUnfit(
                    f"redis.nodes: {address.host}:{address.port} has {_COVERAGE} yes, with which the loss of "
                    "one shard stops all exchanges; set it to no on all servers of the cluster"
                )

    def close(self) -> None:
        """Close the connections that nobody uses."""
        self._nodes.close()


def _map_of(host: str, replies: Sequence[Any]) -> SlotMap:
    """The map. Its errors become StoreAway."""
    slots, info = replies
    if b"cluster_state:ok" not in info:
        # It may be cut off from the others, and know nothing of a failover.
        raise StoreAway("the cluster is down, as one of its servers says")
    return SlotMap(slots, host)


def _says_yes(replies: Sequence[Any]) -> bool:
    (reply,) = replies
    return bool(reply) and reply[1] == b"yes"
