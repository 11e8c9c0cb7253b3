"""How questions are put to Redis: to one server, or to the one of a cluster that has the exchange."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from marketflow.adapters.cache.resp import Command

T = TypeVar("T")


class Asking(Protocol):
    """Every call is bounded, and raises StoreAway for every failure, error replies included."""

    async def read(self, commands: Sequence[Command], read: Callable[[list[Any]], T]) -> T:
        """Ask in one go; `read` makes sense of the replies, in a thread if there are many."""
        ...

    async def read_parts(
        self, parts: Sequence[Sequence[Command]], read: Callable[[int, list[Any]], None]
    ) -> None:
        """Ask part by part; `read` makes sense of the replies to each, given its number."""
        ...
