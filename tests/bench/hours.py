"""Fills Redis with the bars that an earlier boot has left, and PostgreSQL with their rows."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from itertools import islice

import attrs
import trio

from marketflow.adapters.cache.bar_fields import pack_bars, pack_items
from marketflow.adapters.cache.keys import PLAIN
from marketflow.adapters.cache.members import bulk
from marketflow.adapters.db.postgres import PostgresStore
from marketflow.app.ports import Aggregate
from marketflow.app.share.sequences import PER_MS
from marketflow.domain.bars import Bar, merged
from marketflow.domain.periods import MINUTE, SECOND, floor_to
from marketflow.domain.prices import Pair
from tests.bench.stage import BenchError, Stage
from tests.bench.trades import UPDATES, bars
from tests.servers import TcpRedis

BOOT = "0123abcd"
EXCHANGE = "exchange1"
KINDS = 20
"""How many pairs have bars of their own; the others have the same. Read from Redis, all are new objects."""
ROWS_PER_WRITE = 1_000
STORE_SECONDS = 30.0
"""The time limit of a call to PostgreSQL."""


@attrs.frozen
class Hour:
    """The bars of some pairs of one exchange, one for each pair and second."""

    pairs: Sequence[Pair]
    first: int
    """The start (Unix ms) of the first second."""
    kinds: Sequence[Sequence[Bar]]
    """The bars from then on, of each kind of pair."""

    @classmethod
    def until(cls, end: int, *, symbols: Sequence[str], length: int) -> Hour:
        """An hour, or another `length` (ms), that ends at about `end` (Unix ms)."""
        last = floor_to(end, SECOND)
        first = floor_to(last - length, MINUTE)
        seconds = range(first, last, SECOND)
        kinds = [
            [bar.shifted(second * PER_MS) for second, bar in zip(seconds, bars(place, first), strict=False)]
            for place in range(min(KINDS, len(symbols)))
        ]
        return cls([(EXCHANGE, symbol) for symbol in symbols], first, kinds)

    @property
    def end(self) -> int:
        """The end (Unix ms) of the last second."""
        return self.first + len(self.kinds[0]) * SECOND

    @property
    def fields(self) -> int:
        """How many bars there are in Redis."""
        return len(self.pairs) * len(self.kinds[0])

    def updates_from(self, start: int) -> int:
        """How many updates each pair has from then on (Unix ms)."""
        return UPDATES * max(0, (self.end - start) // SECOND)

    def store_bars(self, server: TcpRedis) -> None:
        """Write them to Redis as an earlier boot has, with a command for each pair."""
        seconds = range(self.first, self.end, SECOND)
        commands: list[tuple[bytes, bytes]] = []
        for pair, of_kind in zip(self.pairs, self.kinds, strict=False):
            named = [(pair, (second, BOOT), bar) for second, bar in zip(seconds, of_kind, strict=True)]
            command, (key,) = pack_bars(pack_items(named), PLAIN)
            commands.append((command, bulk(key)))
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            for place, pair in enumerate(self.pairs):
                command, key = commands[place % len(commands)]
                connection.sendall(command.replace(key, bulk(PLAIN.bars(pair)), 1))
            expected = b":%d\r\n" % len(seconds)
            replies = connection.makefile("rb")
            if any(replies.readline() != expected for _ in self.pairs):
                raise BenchError("Redis has not taken all bars")

    def store_rows(self, dsn: str) -> None:
        """Write the rows of all whole minutes to PostgreSQL."""
        trio.run(self._store_rows, dsn)

    async def _store_rows(self, dsn: str) -> None:
        rows = iter(self._rows())
        async with PostgresStore(dsn, interval=MINUTE, timeout=STORE_SECONDS) as store:
            await store.lease()
            while some := list(islice(rows, ROWS_PER_WRITE)):
                await store.write(some)

    def _rows(self) -> list[Aggregate]:
        minutes = range(self.first, floor_to(self.end, MINUTE), MINUTE)
        wholes = [{start: self._minute(of_kind, start) for start in minutes} for of_kind in self.kinds]
        return [
            Aggregate(*pair, start + MINUTE, wholes[place % len(wholes)][start])
            for start in minutes
            for place, pair in enumerate(self.pairs)
        ]

    def _minute(self, of_kind: Sequence[Bar], start: int) -> Bar:
        place = (start - self.first) // SECOND
        whole = merged(of_kind[place : place + MINUTE // SECOND])
        assert whole is not None
        return whole


def sizes_of_hashes(stage: Stage, pairs: Sequence[Pair]) -> Mapping[Pair, int]:
    """The bytes that Redis needs for the bars of each pair, with all of its fields counted."""
    with stage.client() as client:
        sizes = {pair: client.memory_usage(PLAIN.bars(pair), samples=0) for pair in pairs}
    if not all(sizes.values()):
        raise BenchError("Redis has no bars of some pair")
    return {pair: int(size) for pair, size in sizes.items() if size}
