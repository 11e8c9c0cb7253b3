"""The slots of a Redis Cluster, and which server has which."""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Sequence
from typing import Any, Final

from marketflow.adapters.cache.redirects import Address

SLOTS: Final = 16_384


def slot_of(exchange: str) -> int:
    """The slot of all keys of an exchange: its name is their hash tag."""
    return crc_hqx(exchange.encode(), 0) % SLOTS


class SlotMap:
    """Which server has which slot, as a server of the cluster tells, and as `MOVED` has told since."""

    def __init__(self, reply: Sequence[Any], host: str) -> None:
        """Makes a map from the reply to `CLUSTER SLOTS`. `host`: of the server that has replied.

        Raises:
            ValueError, TypeError, IndexError: it is none.
        """
        self._ranges = [
            (range(first, last + 1), [_address(server, host) for server in servers])
            for first, last, *servers in reply
        ]
        self._moved: dict[int, Address] = {}

    def owner(self, slot: int) -> Address | None:
        """The server that has this slot; None if there is none."""
        if slot in self._moved:
            return self._moved[slot]
        return next((servers[0] for slots, servers in self._ranges if slot in slots), None)

    def moved(self, slot: int, address: Address) -> bool:
        """Another server has this slot; returns whether that is the first time since the map was read."""
        first = slot not in self._moved
        self._moved[slot] = address
        return first

    @property
    def owners(self) -> Sequence[Address]:
        """All servers that have slots."""
        return list(dict.fromkeys([servers[0] for _, servers in self._ranges] + [*self._moved.values()]))

    @property
    def servers(self) -> Sequence[Address]:
        """All servers, replicas included."""
        return list(dict.fromkeys([each for _, servers in self._ranges for each in servers]))


def _address(server: Sequence[Any], host: str) -> Address:
    name, port = server[:2]
    # A server that does not know its own name has none, or a question mark.
    given = (name or b"").decode("ascii")
    return Address(host if given in {"", "?"} else given, int(port))
