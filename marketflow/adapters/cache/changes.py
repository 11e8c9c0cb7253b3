"""The streams of changed bars in Redis, as other nodes read them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from marketflow.adapters.cache.change_log import read_changes
from marketflow.adapters.cache.foreign import ForeignLog, Ignored
from marketflow.adapters.cache.keys import TAGGED, changes_key, fence_key
from marketflow.adapters.cache.resp import Command
from marketflow.adapters.cache.routing import RoutedReaders
from marketflow.adapters.cache.servers import Servers
from marketflow.app.ports import START, Change


class RedisChanges:
    """Fills the port Changes."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._foreign = ForeignLog(TAGGED)

    async def end(self, exchange: str) -> str:
        """The place of the newest entry."""
        command = ("XREVRANGE", changes_key(exchange), "+", "-", "COUNT", 1)
        return await self._asking(exchange).read([command], _end)

    async def after(self, exchange: str, place: str) -> Sequence[Change]:
        """The entries after that place.

        A place behind the epoch of the fence is of a time that the store has forgotten.
        """
        epoch, changes = await self._after(exchange, place)
        if epoch is not None and epoch < int(place.partition("-")[0]):
            _, changes = await self._after(exchange, START)
        return changes

    async def _after(self, exchange: str, place: str) -> tuple[int | None, Sequence[Change]]:
        ignored = Ignored()
        # Without COUNT: the stream may have some more than it has to keep, and none of them may lack.
        commands: Sequence[Command] = [
            ("XREAD", "STREAMS", changes_key(exchange), place),
            ("GET", fence_key(exchange)),
        ]
        found = await self._asking(exchange).read(commands, partial(_entries, ignored, exchange))
        self._foreign.tell("change", ignored)
        return found

    def _asking(self, exchange: str) -> RoutedReaders:
        return RoutedReaders(self._servers, exchange)


def _end(replies: Sequence[Any]) -> str:
    (entries,) = replies
    return entries[0][0].decode() if entries else START


def _entries(ignored: Ignored, exchange: str, replies: Sequence[Any]) -> tuple[int | None, Sequence[Change]]:
    """The epoch of the fence, if there is one, and the changes."""
    streams, fence = replies
    epoch = (fence or b"").partition(b":")[0]
    changes = read_changes(exchange, streams[0][1], ignored) if streams else ()
    return int(epoch) if epoch.isdigit() else None, changes
