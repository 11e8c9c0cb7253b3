"""The window in Redis: sorted sets of raw updates, hashes of one-second bars."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar

import msgspec
import structlog

from marketflow.adapters.cache import bar_fields, members
from marketflow.adapters.cache.connections import Connections, open_connections
from marketflow.adapters.cache.field_patterns import patterns_of
from marketflow.adapters.cache.foreign import ForeignLog, Ignored, Kind
from marketflow.adapters.cache.lock import Lock, text_of
from marketflow.adapters.cache.pairs import find_pairs
from marketflow.adapters.cache.replies import (
    Hashes,
    check_write,
    edge_of,
    ids_of,
    numbers_of,
    policy_of,
    prices_of,
)
from marketflow.adapters.cache.resp import Command, ErrorReply, refusals_of
from marketflow.app.ports import (
    ALL,
    Edge,
    Field,
    FieldBars,
    Flush,
    Scope,
    Sight,
    StoreAway,
    StoredBars,
    StoreRefuses,
    Written,
)
from marketflow.domain.bars import BAR_WIDTH, Bar
from marketflow.domain.periods import Span, floor_to
from marketflow.domain.prices import Pair

log = structlog.get_logger()
T = TypeVar("T")

BARS_TTL: Final = 3_600
"""About so many seconds after the last write. Single fields are removed when they are an hour old."""
WINDOW_MARGIN: Final = 5_000
"""How long (ms) past its length the window is kept at most."""
FIELDS_PER_COMMAND: Final = 1_000
WINDOWS_PER_READ: Final = 50
"""Windows whose newest members are read at a time."""
PAIRS_PER_SCAN: Final = 20
"""Hashes of bars in which a few minutes are looked for at a time: up to 300 bars each."""
SCANNED_AT_ONCE: Final = 1_000_000
"""Fields of a hash that Redis looks at in one step: all. One of ours has some thousands."""
PAIRS_PER_READ: Final = 4
"""Hashes of bars that are read at a time: 14,400 fields at most. It takes about 10 ms to take them in."""


class RedisFlush(msgspec.Struct, frozen=True):
    """A flush as the bytes of its commands, and the number of their replies."""

    updates: bytes = b""
    updates_replies: int = 0
    windows: Sequence[bytes] = ()
    """The keys of its updates."""
    bars: bytes = b""
    hashes: Sequence[bytes] = ()
    """The keys of its bars; there is one command for each."""
    removals: bytes = b""
    removals_replies: int = 0

    @property
    def size(self) -> int:
        """Bytes that it holds in memory."""
        return len(self.updates) + len(self.bars) + len(self.removals)

    def without_bars(self) -> RedisFlush:
        """Its updates alone."""
        return RedisFlush(self.updates, self.updates_replies, self.windows)


class RedisWindow:
    """Fills the port Window. Use `open_redis_window`, which closes its connections."""

    def __init__(
        self, connections: Connections, *, boot: str, window_length: int, scope: Scope = ALL
    ) -> None:
        """The window's length in ms."""
        self._redis = connections
        self._lock = Lock(connections.readers, boot.encode(), scope)
        self._updates = members.UpdatesPacker(self._lock.boot)
        self._window_ttl = -(-(window_length + WINDOW_MARGIN) // 1_000)
        self._expiring: dict[bytes, int] = {}
        """The expiry (seconds) of keys written since the last removal: it was set with the first write."""
        self._warned = False
        self._foreign = ForeignLog()
        self._writes = 0
        self._acknowledged = b""
        """The marker of the last write that was."""
        self._intact = True
        """Whether each write since the last report has found the marker of the one before."""
        self.met = Sight(None, None)
        self._posted: list[tuple[bytes, int]] = []
        """For each write in flight its marker, and the index of the previous marker among its replies."""

    # ---- writing ----

    def encode(self, flush: Flush) -> RedisFlush:
        """The commands of a flush."""
        runs: dict[Pair, list[Written]] = {}
        for run in flush.updates:
            runs.setdefault((run.exchange, run.symbol), []).append(run)
        windows = [members.window_name(pair) for pair in runs]
        updates, updates_replies = self._updates.pack(dict(zip(windows, runs.values(), strict=True)))
        return RedisFlush(updates, updates_replies, windows, *bar_fields.pack_bars(flush.bars))

    def encode_trim(
        self, pairs: Sequence[Pair], *, older_than: int, bars: Sequence[tuple[Pair, Field]]
    ) -> RedisFlush:
        """The commands that remove old members and fields."""
        removals = members.removals(pairs, older_than)
        fields: dict[Pair, list[bytes]] = {}
        for pair, field in bars:
            fields.setdefault(pair, []).append(bar_fields.field_name(field))
        removals += [
            members.pack(b"HDEL", bar_fields.bars_name(pair), *names[first : first + FIELDS_PER_COMMAND])
            for pair, names in fields.items()
            for first in range(0, len(names), FIELDS_PER_COMMAND)
        ]
        return RedisFlush(removals=b"".join(removals), removals_replies=len(removals))

    def _expiries(self, flush: RedisFlush) -> Sequence[bytes]:
        """The commands that set the expiry of keys that may have none.

        A key keeps its expiry until it is emptied. So it is set with the first write after a removal, and
        with the next removal: another client may have deleted the key in between.
        """
        if flush.removals:
            wanted, self._expiring = self._expiring, {}
        else:
            known = self._expiring
            wanted = {key: self._window_ttl for key in flush.windows if key not in known}
            wanted |= {key: BARS_TTL for key in flush.hashes if key not in known}
            known |= wanted
        return [members.expiry(key, ttl) for key, ttl in wanted.items()]

    async def post(self, flush: RedisFlush) -> bool:
        """Send a flush; returns whether those posted before it have found the marker."""
        data, replies, posted = self._prepared(flush)
        try:
            found = await self._redis.writer.post(data, replies)
            self._posted.append(posted)
            if any(refusals_of(each) for each in found):
                found += await self._redis.writer.collect()  # After a failure no write is in flight.
            return self._found(found)
        except BaseException as error:
            self._forget(error)
            raise

    async def write(self, flush: RedisFlush) -> bool:
        """Send a flush; returns whether it and those posted before it have found the marker."""
        data, replies, posted = self._prepared(flush)
        self._posted.append(posted)
        try:
            return self._found(await self._redis.writer.write(data, replies))
        except BaseException as error:
            self._forget(error)
            raise

    async def collect(self) -> bool:
        """Wait for all that was posted; returns whether they have found the marker."""
        try:
            return self._found(await self._redis.writer.collect())
        except BaseException as error:
            self._forget(error)
            raise

    def _prepared(self, flush: RedisFlush) -> tuple[list[bytes], int, tuple[bytes, int]]:
        """The commands of a write, how many replies there will be, and what is kept of it."""
        self._writes += 1
        marker = b"%b:%d" % (self._lock.boot, self._writes)
        expiries = self._expiries(flush)
        # Removals first, since a Redis that is full takes nothing before.
        data = [
            flush.removals + self._lock.marking(marker),
            flush.updates,
            flush.bars,
            b"".join(expiries),
        ]
        replies = flush.removals_replies + 3 + flush.updates_replies + len(flush.hashes) + len(expiries)
        return data, replies, (marker, flush.removals_replies)

    def _forget(self, error: BaseException) -> None:
        """After a failure it is unknown whether the posted writes took effect.

        All replies are there when a write is refused. After any other failure some may still come, and the
        next write would take them for its own: the connection ends.
        """
        self._posted.clear()
        self._expiring.clear()
        if not isinstance(error, StoreRefuses):
            self._redis.writer.close()

    def _found(self, replies: Sequence[Sequence[Any]]) -> bool:
        """Check the replies to the oldest posted writes; returns whether each write has found the marker.

        A refused command raises StoreRefuses after all replies were checked: the marker was written.
        """
        refused: list[Exception] = []
        stranger: str | None = None
        for reply in replies:
            marker, place = self._posted.pop(0)
            found, holder = reply[place : place + 2]
            refusals = refusals_of(reply)
            refused += refusals
            if not isinstance(found, Exception):
                self._intact = self._intact and found == self._acknowledged
                self._acknowledged = marker
            if not refusals:
                check_write(reply, place)
                self.met = Sight(text_of(holder), None)
                if found is not None and not found.startswith(self._lock.boot + b":"):
                    stranger = text_of(found)
        self.met = Sight(self.met.holder, stranger)
        if refused:
            raise StoreRefuses(self._redis.failures.reason(refused[0]))
        intact, self._intact = self._intact, True
        if not intact:
            self._expiring.clear()
        return intact

    # ---- the lease ----

    async def look(self) -> Sight:
        """See the port."""
        return await self._lock.look()

    async def take(self, found: Sight) -> bool:
        """See the port."""
        return await self._lock.take(found)

    async def release(self) -> None:
        """See the port."""
        await self._lock.release()

    # ---- reading ----

    async def all_bars(self, pairs: Sequence[Pair]) -> Mapping[Pair, StoredBars]:
        """Every bar there is."""
        await self._check_policy()
        parts = [pairs[first : first + PAIRS_PER_READ] for first in range(0, len(pairs), PAIRS_PER_READ)]
        hashes, ignored = Hashes(), Ignored()

        def read(number: int, replies: list[Any]) -> None:
            hashes.read(parts[number], replies, ignored)

        commands = [[("HGETALL", bar_fields.bars_key(pair)) for pair in part] for part in parts]
        await self._redis.readers.read_parts(commands, read)
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
                ("HSCAN", bar_fields.bars_key(pair), 0, "MATCH", pattern, "COUNT", SCANNED_AT_ONCE)
                for pair in part
                for pattern in patterns
            ]
            for part in parts
        ]
        try:
            await self._redis.readers.read_parts(commands, read)
        except StoreAway as error:
            cause = error.__cause__
            if isinstance(cause, ErrorReply) and not cause.ends_connection:
                raise StoreRefuses(str(error)) from error
            raise
        return hashes.found

    async def pairs_with_bars(self) -> Sequence[Pair]:
        """Pairs that have bars."""
        try:
            return [pair for pair in await find_pairs(self._redis.readers) if pair[0] in self._lock.scope]
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
            ("HMGET", bar_fields.bars_key(pair), *map(bar_fields.field_name, part)) for pair, part in parts
        ]
        await self._read("bar", commands, read)
        return found

    async def edges(self, pairs: Sequence[Pair], spans: Sequence[Span]) -> Mapping[Pair, Sequence[Edge]]:
        """The raw updates of each span as a bar, and how many there are in the seconds that it touches."""
        seconds = [range(floor_to(span.start, BAR_WIDTH), span.end, BAR_WIDTH) for span in spans]
        commands: list[tuple[str | int, ...]] = []
        for pair in pairs:
            key = members.window_key(pair)
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
        return await self._redis.readers.read(_of_spans("ZCOUNT", spans), numbers_of)

    async def prices(self, spans: Sequence[tuple[Pair, Span]]) -> Sequence[Sequence[float]]:
        """The prices of members in our format. Takes a quarter of the time of whole edges."""
        commands = _of_spans("ZRANGEBYSCORE", spans)
        return await self._read("update", commands, partial(prices_of, [pair for pair, _ in spans]))

    async def ids(self, pairs: Sequence[Pair], most: int) -> Mapping[Pair, Sequence[str]]:
        """The ids of each pair's newest members."""
        found: dict[Pair, Sequence[str]] = {}
        for first in range(0, len(pairs), WINDOWS_PER_READ):
            part = pairs[first : first + WINDOWS_PER_READ]
            commands = [("ZRANGE", members.window_key(pair), -most, -1) for pair in part]
            found.update(await self._redis.readers.read(commands, partial(ids_of, part)))
        return found

    async def _read(
        self, kind: Kind, commands: Sequence[Command], read: Callable[[list[Any], Ignored], T]
    ) -> T:
        """Ask in one go. What `read` ignores in the replies is foreign data of that kind."""
        ignored = Ignored()
        found = await self._redis.readers.read(commands, lambda replies: read(replies, ignored))
        self._foreign.tell(kind, ignored)
        return found

    async def _check_policy(self) -> None:
        """Warn if Redis may evict data."""
        if self._warned:
            return
        try:
            policy = await self._redis.readers.read([("CONFIG", "GET", "maxmemory-policy")], policy_of)
        except StoreAway:
            return  # CONFIG may be forbidden; whether Redis is away shows with the next call.
        self._warned = True
        if policy != "noeviction":
            log.warning("eviction enabled in Redis", maxmemory_policy=policy, wanted="noeviction")


def _of_spans(command: str, spans: Iterable[tuple[Pair, Span]]) -> list[tuple[str | int, ...]]:
    return [(command, members.window_key(pair), span.start, f"({span.end}") for pair, span in spans]


@asynccontextmanager
async def open_redis_window(
    url: str, *, boot: str, window_length: int, timeout: float, scope: Scope = ALL
) -> AsyncIterator[RedisWindow]:
    """A window at a Redis URL. Connects with the first call; closes all connections on leaving.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        boot: unique id of this run.
        window_length: ms.
        timeout: seconds that Redis has to connect, and to answer.
        scope: whose lease is taken, and of which exchanges bars are looked for.

    Raises:
        ValueError: the URL is not of that form.
    """
    async with open_connections(url, timeout) as connections:
        yield RedisWindow(connections, boot=boot, window_length=window_length, scope=scope)
