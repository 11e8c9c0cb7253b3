"""The questions that a window answers, to one Redis: bars, edges, counts, prices and ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar

import structlog

from marketflow.adapters.cache import bar_fields
from marketflow.adapters.cache.asking import Asking
from marketflow.adapters.cache.field_patterns import patterns_of
from marketflow.adapters.cache.foreign import ForeignLog, Ignored, Kind
from marketflow.adapters.cache.keys import Keys
from marketflow.adapters.cache.packing import FIELDS_PER_COMMAND
from marketflow.adapters.cache.pairs import find_pairs
from marketflow.adapters.cache.replies import (
    Hashes,
    edge_of,
    ids_of,
    numbers_of,
    policy_of,
    prices_of,
    updates_of,
)
from marketflow.adapters.cache.resp import Command, ErrorReply
from marketflow.app.ports import (
    ALL,
    Edge,
    Field,
    FieldBars,
    Scope,
    StoreAway,
    StoredBars,
    StoreRefuses,
)
from marketflow.domain.bars import BAR_WIDTH, Bar
from marketflow.domain.periods import Span, floor_to
from marketflow.domain.prices import Pair, PriceUpdate

log = structlog.get_logger()
T = TypeVar("T")

WINDOWS_PER_READ: Final = 50
"""Windows whose newest members are read at a time."""
PAIRS_PER_SCAN: Final = 20
"""Hashes of bars in which a few minutes are looked for at a time: up to 300 bars each."""
SCANNED_AT_ONCE: Final = 1_000_000
"""Fields of a hash that Redis looks at in one step: all. One of ours has some thousands."""
PAIRS_PER_READ: Final = 4
"""Hashes of bars that are read at a time: 14,400 fields at most. It takes about 10 ms to take them in."""


class RedisReading:
    """Fills the part of the port Window that reads."""

    def __init__(self, readers: Asking, keys: Keys, scope: Scope = ALL) -> None:
        """`scope`: of which exchanges bars are looked for."""
        self._readers = readers
        self._keys = keys
        self._scope = scope
        self._warned = False
        self._foreign = ForeignLog(keys)

    async def all_bars(self, pairs: Sequence[Pair]) -> Mapping[Pair, StoredBars]:
        """Every bar there is."""
        await self._check_policy()
        parts = [pairs[first : first + PAIRS_PER_READ] for first in range(0, len(pairs), PAIRS_PER_READ)]
        hashes, ignored = Hashes(), Ignored()

        def read(number: int, replies: list[Any]) -> None:
            hashes.read(parts[number], replies, ignored)

        commands: list[list[Command]] = [
            [("HGETALL", self._keys.bars(pair)) for pair in part] for part in parts
        ]
        await self._readers.read_parts(commands, read)
        self._foreign.tell("bar", ignored)
        return hashes.found

    async def bars_within(self, pairs: Sequence[Pair], span: Span) -> Mapping[Pair, StoredBars]:
        """The bars of these minutes: Redis looks for their fields, and sends little else."""
        parts = [pairs[first : first + PAIRS_PER_SCAN] for first in range(0, len(pairs), PAIRS_PER_SCAN)]
        hashes, patterns = Hashes(), patterns_of(span)

        def read(number: int, replies: list[Any]) -> None:
            # Foreign bars are logged when all bars are read.
            hashes.scanned(parts[number], replies, span, Ignored())

        commands: list[list[Command]] = [
            [
                ("HSCAN", self._keys.bars(pair), 0, "MATCH", pattern, "COUNT", SCANNED_AT_ONCE)
                for pair in part
                for pattern in patterns
            ]
            for part in parts
        ]
        try:
            await self._readers.read_parts(commands, read)
        except StoreAway as error:
            cause = error.__cause__
            if isinstance(cause, ErrorReply) and not cause.ends_connection:
                raise StoreRefuses(str(error)) from error
            raise
        return hashes.found

    async def pairs_with_bars(self) -> Sequence[Pair]:
        """Pairs that have bars."""
        try:
            return await find_pairs(self._readers, self._keys, self._scope)
        except StoreAway as error:
            # SCAN may be forbidden; whether Redis is away shows with the next call.
            log.warning("search for old symbols failed", error=str(error))
            return ()

    async def bars(self, fields: Mapping[Pair, Sequence[Field]]) -> Mapping[Pair, FieldBars]:
        """The bars in these fields."""
        parts: list[tuple[Pair, Sequence[Field]]] = []
        for pair, of_pair in fields.items():
            ordered = iter(of_pair)
            while part := list(islice(ordered, FIELDS_PER_COMMAND)):
                parts.append((pair, part))
        found: dict[Pair, dict[Field, Bar]] = {pair: {} for pair in fields}

        def read(replies: list[Any], ignored: Ignored) -> None:
            for (pair, part), values in zip(parts, replies, strict=True):
                named = zip(map(bar_fields.field_name, part), values, strict=True)
                held = ((name, value) for name, value in named if value is not None)
                found[pair].update(bar_fields.read_bars(pair, held, ignored))

        commands: list[Command] = [
            ("HMGET", self._keys.bars(pair), *map(bar_fields.field_name, part)) for pair, part in parts
        ]
        await self._read("bar", commands, read)
        return found

    async def edges(self, pairs: Sequence[Pair], spans: Sequence[Span]) -> Mapping[Pair, Sequence[Edge]]:
        """The raw updates of each span as a bar, and how many there are in the seconds that it touches."""
        seconds = [range(floor_to(span.start, BAR_WIDTH), span.end, BAR_WIDTH) for span in spans]
        commands: list[Command] = []
        for pair in pairs:
            key = self._keys.window(pair)
            for span, touched in zip(spans, seconds, strict=True):
                commands.append(("ZRANGEBYSCORE", key, span.start, f"({span.end}", "WITHSCORES"))
                commands += [("ZCOUNT", key, second, f"({second + BAR_WIDTH}") for second in touched]

        def read(replies: list[Any], ignored: Ignored) -> dict[Pair, Sequence[Edge]]:
            following = iter(replies)
            return {
                pair: [edge_of(pair, touched, following, ignored) for touched in seconds] for pair in pairs
            }

        return await self._read("update", commands, read)

    async def counts(self, spans: Sequence[tuple[Pair, Span]]) -> Sequence[int]:
        """How many members each pair has within its span."""
        return await self._readers.read(self._of_spans("ZCOUNT", spans), numbers_of)

    async def updates(self, spans: Sequence[tuple[Pair, Span]]) -> Sequence[Sequence[PriceUpdate]]:
        """The updates of members in our format."""
        commands = [(*command, "WITHSCORES") for command in self._of_spans("ZRANGEBYSCORE", spans)]
        return await self._read("update", commands, partial(updates_of, [pair for pair, _ in spans]))

    async def prices(self, spans: Sequence[tuple[Pair, Span]]) -> Sequence[Sequence[float]]:
        """The prices of members in our format. Takes a quarter of the time of whole edges."""
        commands = self._of_spans("ZRANGEBYSCORE", spans)
        return await self._read("update", commands, partial(prices_of, [pair for pair, _ in spans]))

    async def ids(self, pairs: Sequence[Pair], most: int) -> Mapping[Pair, Sequence[str]]:
        """The ids of each pair's newest members."""
        found: dict[Pair, Sequence[str]] = {}
        for first in range(0, len(pairs), WINDOWS_PER_READ):
            part = pairs[first : first + WINDOWS_PER_READ]
            commands: list[Command] = [("ZRANGE", self._keys.window(pair), -most, -1) for pair in part]
            found.update(await self._readers.read(commands, partial(ids_of, part)))
        return found

    async def _read(
        self, kind: Kind, commands: Sequence[Command], read: Callable[[list[Any], Ignored], T]
    ) -> T:
        """Ask in one go. What `read` ignores in the replies is foreign data of that kind."""
        ignored = Ignored()
        found = await self._readers.read(commands, lambda replies: read(replies, ignored))
        self._foreign.tell(kind, ignored)
        return found

    def _of_spans(self, command: str, spans: Iterable[tuple[Pair, Span]]) -> list[Command]:
        return [(command, self._keys.window(pair), span.start, f"({span.end}") for pair, span in spans]

    async def _check_policy(self) -> None:
        """Warn if Redis may evict data."""
        if self._warned:
            return
        try:
            policy = await self._readers.read([("CONFIG", "GET", "maxmemory-policy")], policy_of)
        except StoreAway:
            return  # CONFIG may be forbidden; whether Redis is away shows with the next call.
        self._warned = True
        if policy != "noeviction":
            log.warning("eviction enabled in Redis", maxmemory_policy=policy, wanted="noeviction")
