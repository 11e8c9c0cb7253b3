"""Bars that Redis does not have as they are now, in the order in which they are taken to be written."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from itertools import islice

from marketflow.app.ports import Field
from marketflow.domain.prices import Pair

Key = tuple[Pair, Field]


class Unflushed:
    """First in, first out. A bar that changes again before it is taken keeps its place."""

    def __init__(self) -> None:
        self._keys: dict[Key, None] = {}
        self.taken = 0
        """How many have gone so far, whether they were taken or forgotten: a place in the order."""

    @property
    def keys(self) -> AbstractSet[Key]:
        """Which they are."""
        return self._keys.keys()

    @property
    def position(self) -> int:
        """The place in the order behind all of them."""
        return self.taken + len(self._keys)

    def add(self, key: Key) -> None:
        """That bar has changed."""
        self._keys[key] = None

    def take(self, limit: int) -> Iterable[Key]:
        """Take the first ones, at most `limit`."""
        if len(self._keys) <= limit:
            keys, self._keys = self._keys, {}
        else:
            keys = dict.fromkeys(islice(self._keys, limit))
            for key in keys:
                del self._keys[key]
        self.taken += len(keys)
        return keys

    def forget(self, keys: Iterable[Key]) -> None:
        """These bars are gone: else an outage of Redis would pile them up."""
        before = len(self._keys)
        for key in keys:
            self._keys.pop(key, None)
        self.taken += before - len(self._keys)
