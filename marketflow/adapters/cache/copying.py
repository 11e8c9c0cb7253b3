"""Copies windows and bars from the keys of a single service to those of a cluster, or back.

Members and fields are read and written again as they are. `DUMP` and `RESTORE` would be faster, but an older
server refuses what a newer one has dumped, and a window of a busy pair would block both servers for long.

Copying twice is harmless: a member is the same member then, and of two copies of a bar the one with more
updates is kept, since a bar only grows. So a copy that was killed is whole once it was run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from operator import itemgetter
from typing import Any, Final, Protocol, TypeVar

import attrs

from marketflow.adapters.cache.bar_fields import field_name, read_bar, read_field
from marketflow.adapters.cache.keys import Keys
from marketflow.adapters.cache.members import MEMBERS_PER_COMMAND, in_twos
from marketflow.adapters.cache.packing import BARS_TTL, FIELDS_PER_COMMAND
from marketflow.adapters.cache.resp import Command
from marketflow.app.ports import Field, StoreAway
from marketflow.domain.bars import Bar
from marketflow.domain.packed_bars import pack_bar
from marketflow.domain.prices import Pair

T = TypeVar("T")

COPIED_AT_ONCE: Final = 5_000
"""Members or fields of one write. It takes Redis some ms."""


class Side(Protocol):
    """One of the two places. Every awaited method is bounded, and raises StoreAway.

    Nobody else writes to it: reads and writes fail once somebody else may.
    """

    @property
    def keys(self) -> Keys:
        """The names of its keys."""
        ...

    async def pairs(self, exchanges: Sequence[str]) -> Sequence[Pair]:
        """The pairs of these exchanges that have bars, configured or not."""
        ...

    async def read(self, exchange: str, commands: Sequence[Command], read: Callable[[list[Any]], T]) -> T:
        """Ask about one exchange."""
        ...

    async def write(self, exchange: str, commands: Sequence[Command]) -> None:
        """Write keys of one exchange, all or none of it."""
        ...


@contextmanager
def naming(store: str) -> Iterator[None]:
    """Say in errors which store is meant."""
    try:
        yield
    except StoreAway as error:
        raise StoreAway(f"{store}: {error}") from error


@attrs.frozen
class NamedSide:
    """Fills `Side` with another one, whose errors say which it is."""

    side: Side
    store: str

    @property
    def keys(self) -> Keys:
        """See `Side`."""
        return self.side.keys

    async def pairs(self, exchanges: Sequence[str]) -> Sequence[Pair]:
        """See `Side`."""
        with naming(self.store):
            return await self.side.pairs(exchanges)

    async def read(self, exchange: str, commands: Sequence[Command], read: Callable[[list[Any]], T]) -> T:
        """See `Side`."""
        with naming(self.store):
            return await self.side.read(exchange, commands, read)

    async def write(self, exchange: str, commands: Sequence[Command]) -> None:
        """See `Side`."""
        with naming(self.store):
            await self.side.write(exchange, commands)


@attrs.define
class Copied:
    """How much was copied up to now."""

    pairs: int = 0
    """Those that had anything."""
    updates: int = 0
    bars: int = 0


@attrs.frozen
class Copying:
    """Copies pair by pair."""

    source: Side
    target: Side
    progress: Callable[[Copied], None]
    """Is called after each write."""
    copied: Copied = attrs.field(factory=Copied)

    async def copy(self, pair: Pair, more: Mapping[Field, Bar]) -> None:
        """Copy all that a pair has, and `more` of its bars, which the source may lack."""
        updates, bars = await self._copy_window(pair), await self._copy_bars(pair, more)
        self.copied.pairs += bool(updates or bars)

    async def _copy_window(self, pair: Pair) -> int:
        exchange, first = pair[0], 0
        source, target = self.source.keys.window(pair), self.target.keys.window(pair)
        left_there = await self.target.read(exchange, [("PTTL", target)], itemgetter(0))
        while True:
            last = first + COPIED_AT_ONCE - 1
            found, left = await self.source.read(
                exchange,
                [("ZRANGE", source, first, last, "WITHSCORES"), ("PTTL", source)],
                lambda replies: (list(in_twos(replies[0])), replies[1]),
            )
            if not found:
                return first
            scored = [(score, member) for member, score in found]
            commands = _in_commands(("ZADD", target), scored, MEMBERS_PER_COMMAND)
            await self.target.write(exchange, [*commands, *_expiry(target, max(left, left_there))])
            self.copied.updates += len(found)
            first += len(found)
            self.progress(self.copied)

    async def _copy_bars(self, pair: Pair, more: Mapping[Field, Bar]) -> int:
        source, target = self.source.keys.bars(pair), self.target.keys.bars(pair)
        bars, left = await self.source.read(pair[0], _of_hash(source), _hash_of)
        there, left_there = await self.target.read(pair[0], _of_hash(target), _hash_of)
        packed = {field_name(field): pack_bar(bar, field[0]) for field, bar in more.items()}
        bars |= _newer(packed, bars)
        if more:
            left = max(left, BARS_TTL * 1_000)
        for part in _parts(list(_newer(bars, there).items()), COPIED_AT_ONCE):
            commands = _in_commands(("HSET", target), part, FIELDS_PER_COMMAND)
            await self.target.write(pair[0], [*commands, *_expiry(target, max(left, left_there))])
            self.progress(self.copied)
        self.copied.bars += len(bars)
        return len(bars)


def _of_hash(key: bytes) -> Sequence[Command]:
    return ("HGETALL", key), ("PTTL", key)


def _hash_of(replies: list[Any]) -> tuple[dict[bytes, bytes], int]:
    """The fields of a hash, and for how long (ms) it is still there."""
    items, left = replies
    return dict(in_twos(items)), left


def _newer(bars: Mapping[bytes, bytes], there: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Those that are not there, or are there with fewer updates."""
    return {
        name: value
        for name, value in bars.items()
        if name not in there
        or (value != there[name] and _updates_of(name, value) > _updates_of(name, there[name]))
    }


def _updates_of(name: bytes, value: bytes) -> int:
    """The number of updates of a bar; 0 if it cannot be read."""
    try:
        return read_bar(value, read_field(name)[0]).count
    except ValueError:
        return 0


def _in_commands(begin: Command, items: Sequence[tuple[bytes, bytes]], most: int) -> Sequence[Command]:
    """Commands with so many of the items at most."""
    return [(*begin, *chain.from_iterable(part)) for part in _parts(items, most)]


def _parts(items: Sequence[T], most: int) -> Sequence[Sequence[T]]:
    return [items[first : first + most] for first in range(0, len(items), most)]


def _expiry(key: bytes, left: int) -> Sequence[Command]:
    """The command that keeps the expiry of a key; none for a key without one."""
    return [("PEXPIRE", key, left)] if left > 0 else []
