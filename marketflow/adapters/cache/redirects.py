"""Errors with which a server of a Redis Cluster sends its clients elsewhere, or asks for patience."""

from __future__ import annotations

from enum import Enum
from typing import Final

import attrs

from marketflow.adapters.cache.resp import ErrorReply

PAUSE_SECONDS: Final = 0.02
"""How long to wait before a server that has asked for patience is asked again."""


class Direction(Enum):
    """What such an error asks for."""

    MOVED = "moved"
    """Another server has the slot."""
    ASK = "ask"
    """The slot is being moved key by key, and another server has this key, or would get it."""
    LATER = "later"
    """The slot is being moved key by key: some keys of the command are here, others there."""
    AWAY = "away"
    """The server cannot serve the slot: the cluster is down, or it is no master any more."""


_DIRECTIONS: Final = {
    "MOVED": Direction.MOVED,
    "ASK": Direction.ASK,
    "TRYAGAIN": Direction.LATER,
    "CLUSTERDOWN": Direction.AWAY,
    "MASTERDOWN": Direction.AWAY,
    "READONLY": Direction.AWAY,
}


@attrs.frozen
class Address:
    """Where a server listens."""

    host: str
    """May be empty in an answer: the host of the server that has answered."""
    port: int


def direction_of(error: ErrorReply) -> Direction | None:
    """Where it sends us; None for an error of another kind."""
    return _DIRECTIONS.get(str(error).partition(" ")[0])


def target_of(error: ErrorReply) -> tuple[int, Address]:
    """The slot, and the server that `MOVED` or `ASK` names: `MOVED 3999 127.0.0.1:6381`.

    Raises:
        ValueError: it names none.
    """
    _, slot, address = str(error).split(" ")
    host, _, port = address.rpartition(":")
    return int(slot), Address(host.strip("[]"), int(port))
