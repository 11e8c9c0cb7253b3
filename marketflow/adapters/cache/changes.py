"""The streams of changed bars in Redis, as other nodes read them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from marketflow.adapters.cache.change_log import read_changes
from marketflow.adapters.cache.foreign import ForeignLog, Ignored
from marketflow.adapters.cache.keys import TAGGED, changes_key, fence_key
from marketflow.adapters.cache.resp import Command
from marketflow.adapters.cache.routing import ask_each
from marketflow.adapters.cache.servers import Servers
from marketflow.app.ports import START, Change


class RedisChanges:
    """Fills the port Changes."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._foreign = ForeignLog(TAGGED)

    async def ends(self, exchanges: Collection[str]) -> Mapping[str, str]:
        """The place of the newest entry of each stream."""
        questions: dict[str, Sequence[Command]] = {
            exchange: [("XREVRANGE", changes_key(exchange), "+", "-", "COUNT", 1)] for exchange in exchanges
        }
        return await ask_each(self._servers, questions, _end)

    async def after(self, places: Mapping[str, str]) -> Mapping[str, Sequence[Change]]:
        """The entries of each stream after that place.

        A place behind the epoch of the fence is of a time that the store has forgotten.
        """
        found = await self._after(places)
        restarted = {
            exchange: START
            for exchange, (epoch, _) in found.items()
            if epoch is not None and epoch < int(places[exchange].partition("-")[0])
        }
        found |= await self._after(restarted)
        return {exchange: changes for exchange, (_, changes) in found.items()}

    async def _after(self, places: Mapping[str, str]) -> dict[str, tuple[int | None, Sequence[Change]]]:
        ignored = Ignored()
        questions: dict[str, Sequence[Command]] = {
            exchange: [
                # Without COUNT: the stream may have some more than it has to keep, and none of them may lack.
                ("XREAD", "STREAMS", changes_key(exchange), place),
                ("GET", fence_key(exchange)),
            ]
            for exchange, place in places.items()
        }
        found = await ask_each(self._servers, questions, partial(_entries, ignored))
        self._foreign.tell("change", ignored)
        return found


def _end(_: str, replies: Sequence[Any]) -> str:
    (entries,) = replies
    return entries[0][0].decode() if entries else START


def _entries(ignored: Ignored, exchange: str, replies: Sequence[Any]) -> tuple[int | None, Sequence[Change]]:
    """The epoch of the fence, if there is one, and the changes."""
    streams, fence = replies
    epoch = (fence or b"").partition(b":")[0]
    changes = read_changes(exchange, streams[0][1], ignored) if streams else ()
    return int(epoch) if epoch.isdigit() else None, changes
