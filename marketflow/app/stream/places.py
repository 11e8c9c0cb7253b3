"""The limit of clients at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trio_util import AsyncValue

from marketflow.app.answers import TooManyClients


class Places:
    """As many places as there may be clients."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = AsyncValue[int](0)

    @property
    def taken(self) -> int:
        """The current number of clients."""
        taken: int = self._taken.value
        return taken

    @contextmanager
    def take(self) -> Iterator[None]:
        """Take a place for the length of the block.

        Raises:
            TooManyClients
        """
        if self._taken.value >= self._most:
            raise TooManyClients(self._most)
        self._taken.value += 1
        try:
            yield
        finally:
            self._taken.value -= 1

    async def wait_taken(self) -> None:
        """Wait until there is a client."""
        await self._taken.wait_value(lambda taken: taken > 0)

    async def wait_free(self) -> None:
        """Wait until there is no client."""
        await self._taken.wait_value(lambda taken: taken == 0)
