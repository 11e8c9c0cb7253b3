"""Windows of terms, in memory and in Redis: each that is opened begins a term, and seals its fence."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from itertools import count

import redis

from marketflow.adapters.cache.memory_terms import FencedShelf, MemoryChanges, MemoryTermWindow
from marketflow.adapters.cache.node import open_node_redis
from marketflow.app.ports import Flush, Term, Written
from marketflow.domain.bars import Bar
from marketflow.domain.columns import Columns
from marketflow.domain.periods import MINUTE, SECOND

EXCHANGE = "exchange1"


def sure():
    """The database has confirmed the term."""
    return True


async def seal(window):
    """What `Fence` does at first."""
    assert await window.take(await window.look())


class TermsInMemory:
    """One store in memory."""

    def __init__(self):
        self.shelf = FencedShelf()
        self.epochs = count(1)

    @asynccontextmanager
    async def changes(self):
        yield MemoryChanges({EXCHANGE: self.shelf})

    @asynccontextmanager
    async def begin(self, term):
        """The window of a term that is not sealed yet."""
        yield MemoryTermWindow(term, self.shelf)

    @asynccontextmanager
    async def open(self, boot):
        async with self.begin(Term(EXCHANGE, next(self.epochs), boot)) as window:
            await seal(window)
            yield window

    def empty(self):
        self.shelf.empty()

    def forget_fence(self):
        """Remove the fence alone."""
        self.shelf.fence = None


class TermsInRedis(TermsInMemory):
    """A Redis."""

    def __init__(self, url, timeout=10.0, nodes=()):
        super().__init__()
        self.url = url
        self._timeout = timeout
        self._nodes = nodes

    @asynccontextmanager
    async def node(self):
        """What a node has of it."""
        async with open_node_redis(
            self.url, self._nodes, window_length=MINUTE, timeout=self._timeout
        ) as node:
            yield node

    @asynccontextmanager
    async def changes(self):
        async with self.node() as node:
            yield node.changes

    @asynccontextmanager
    async def begin(self, term):
        async with self.node() as node, node.window(term, sure) as window:
            yield window

    def empty(self):
        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    def forget_fence(self):
        with redis.Redis.from_url(self.url) as client:
            client.delete(f"fence:{{{EXCHANGE}}}")


class Traffic:
    """Random flushes of one term, and what a window must have once they were written. A model of its own."""

    def __init__(self, term, seed, *, exchange=EXCHANGE, start):
        """`start`: of the time from which updates are (ms)."""
        self.members: dict[tuple[str, str], set[tuple[int, float, int]]] = {}
        """By pair the timestamp, price and sequence of each update."""
        self.bars: dict[tuple[str, str], dict[tuple[int, str], Bar]] = {}
        self._term = term
        self._rng = random.Random(seed)
        self._exchange = exchange
        self._start = start
        self._sequence = 10**15

    def flush(self):
        """One more flush; and a function that notes that it was written."""
        runs, bars, members = [], [], {}
        for symbol in self._rng.sample(["BTCUSDT", "ETHUSDT", "DOGEUSDT"], self._rng.randint(1, 3)):
            pair, number = (self._exchange, symbol), self._rng.randint(1, 50)
            times = sorted(self._start + self._rng.randrange(10 * SECOND) for _ in range(number))
            prices = [self._rng.uniform(1, 1e5) for _ in times]
            sequences = range(self._sequence, self._sequence + number)
            self._sequence += number
            runs.append(Written(*pair, sequences, Columns(times, prices)))
            members[pair] = set(zip(times, prices, sequences, strict=True))
            second = times[0] // SECOND * SECOND
            whole = Bar.of([second], [self._rng.uniform(1, 1e5)], self._sequence)
            bars.append((pair, (second, self._term), whole))

        def written():
            for pair, some in members.items():
                self.members.setdefault(pair, set()).update(some)
            for pair, field, whole in bars:
                self.bars.setdefault(pair, {})[field] = whole

        return Flush(runs, bars), written

    def check(self, client):
        """Compare with a Redis, through a client of redis-py."""
        for (exchange, symbol), expected in self.members.items():
            held = client.zrange(f"prices:{{{exchange}}}:{symbol}", 0, -1, withscores=True)
            found = [
                (int(score), float(member.split(b":")[0]), int(member.split(b":")[1], 36))
                for member, score in held
            ]
            assert len(found) == len(expected)
            assert set(found) == expected
