"""Questions about one exchange, put to the server that has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import trio

from marketflow.adapters.cache.redirects import Direction, direction_of
from marketflow.adapters.cache.resp import Command, ErrorReply, refusals_of
from marketflow.adapters.cache.servers import Server, Servers
from marketflow.app.ports import StoreAway

T = TypeVar("T")


class RoutedReaders:
    """Fills `Asking` for one exchange. If a server sends us elsewhere, the question is asked again there."""

    def __init__(self, servers: Servers, exchange: str) -> None:
        self._servers = servers
        self._exchange = exchange

    async def read(self, commands: Sequence[Command], read: Callable[[list[Any]], T]) -> T:
        """Ask in one go."""
        deadline = trio.current_time() + self._servers.timeout
        server = await self._servers.of(self._exchange)
        while True:
            try:
                replies, size = await server.readers.replies(commands)
            except StoreAway:
                self._servers.doubt()
                raise
            with self._servers.failures.translated():
                error = await self._elsewhere(server, commands, replies)
                if error is None:
                    return await server.readers.made_sense_of(replies, read, size, deadline)
                if trio.current_time() > deadline:
                    raise error
            server = await self._servers.follow(server, error)

    async def read_parts(
        self, parts: Sequence[Sequence[Command]], read: Callable[[int, list[Any]], None]
    ) -> None:
        """Ask part by part."""
        for number, commands in enumerate(parts):
            await self.read(commands, partial(read, number))

    async def _elsewhere(
        self, server: Server, commands: Sequence[Command], replies: list[Any]
    ) -> ErrorReply | None:
        """An error for which the question has to be asked again; None if all replies are there now.

        What the server answers with `ASK` is asked of the other one at once, and put among the replies.

        Raises:
            ErrorReply: another error.
        """
        asked: dict[int, ErrorReply] = {}
        for place, reply in enumerate(replies):
            if type(reply) is ErrorReply:
                direction = direction_of(reply)
                if direction is None:
                    raise reply
                if direction is not Direction.ASK:
                    return reply
                asked[place] = reply
        if not asked:
            return None
        return await self._ask(server, commands, replies, asked)

    async def _ask(
        self,
        server: Server,
        commands: Sequence[Command],
        replies: list[Any],
        asked: Mapping[int, ErrorReply],
    ) -> ErrorReply | None:
        """Ask these commands of the server that has their keys already, or would get them."""
        other = await self._servers.follow(server, next(iter(asked.values())))
        following = [each for place in asked for each in (("ASKING",), commands[place])]
        found, _ = await other.readers.replies(following)
        refusals = refusals_of(found)
        if refusals:
            if direction_of(refusals[0]) is None:
                raise refusals[0]
            return refusals[0]
        for place, reply in zip(asked, found[1::2], strict=True):
            replies[place] = reply
        return None
