"""A whole cluster for a test, what goes on all the time, and what must hold at the end."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import psycopg
import trio

from tests.cluster.market import Market, markets, quiet
from tests.cluster.nodes import INTERVAL, Node, nodes
from tests.cluster.stores import Redis
from tests.cluster.windows import Windows
from tests.faults.rig import (
    Answer,
    Sent,
    check_ledger,
    differences,
    eventually,
    expected_rows,
    now_ms,
    stored_rows,
)

ROLES: Mapping[str, str] = {"one": "ingest", "two": "all", "three": "api"}
ASKED = ("three", "two")
"""Who is asked all the time: the first of these whom the test does not hurt."""
EXCHANGES = 3
GENERATED = ("test1", "test2", "test3")
"""The exchanges of test mode."""
SOON = 30.0
"""Seconds, of looks, in which what must come must have come."""


@attrs.frozen
class Term:
    """The last term of an exchange, as the database has it."""

    exchange: str
    epoch: int
    id: str
    node: str

    @property
    def mark(self) -> str:
        """What members have of the id."""
        return self.id[-4:]


@attrs.frozen
class Stage:
    """What a test works with."""

    dsn: str
    markets: Collection[Market]
    nodes: Mapping[str, Node]
    windows: Windows
    changes: Mapping[str, str]
    """Further settings of all nodes."""
    answers: list[int] = attrs.field(factory=list)
    """The timestamps of answers that were checked."""
    _left_alone: set[str] = attrs.field(factory=set)
    """Nodes that are not asked now."""
    _turn: trio.Lock = attrs.field(factory=trio.Lock)
    """Held while a node is asked."""

    @property
    def sent(self) -> list[Sent]:
        """All that the exchanges have sent."""
        return [update for market in self.markets for update in market.sent]

    def sent_by(self, exchange: str) -> list[Sent]:
        """All that an exchange has sent."""
        (market,) = (each for each in self.markets if each.name == exchange)
        return market.sent

    @property
    def exchanges(self) -> list[str]:
        """Their names."""
        return [market.name for market in self.markets]

    @property
    def asked(self) -> Node:
        """A node that the test does not hurt."""
        return self.nodes[next(name for name in ASKED if name not in self._left_alone)]

    async def ask(self, path: str) -> tuple[float, Answer]:
        """Ask such a node; returns when (monotonic seconds), and what it answered."""
        async with self._turn:
            asked_at = monotonic()
            return asked_at, await self.asked.ask(path)

    @asynccontextmanager
    async def left_alone(self, name: str) -> AsyncIterator[None]:
        """A block in which this node is not asked."""
        async with self._turn:
            self._left_alone.add(name)
        try:
            yield
        finally:
            self._left_alone.discard(name)

    async def start(self, name: str) -> Node:
        """Start a node, and wait until it serves."""
        node = self.nodes[name]
        await node.start(self.markets, self.changes)
        await node.serves()
        return node

    async def terms(self) -> dict[str, Term]:
        """The last terms, by exchange; none while no node has made the tables yet."""

        def read() -> dict[str, Term]:
            with psycopg.connect(self.dsn) as connection, suppress(psycopg.errors.UndefinedTable):
                found = connection.execute("SELECT exchange, epoch, term, node FROM marketflow_leases")
                return {row[0]: Term(*row) for row in found.fetchall() if row[0] in self.exchanges}
            return {}

        return await trio.to_thread.run_sync(read)

    async def settled(
        self, *, after: Mapping[str, Term] | None = None, by: str | None = None
    ) -> dict[str, Term]:
        """Wait until every exchange has one owner, by which updates come; returns the terms.

        Args:
            after: terms that must have been followed by others.
            by: the node that must have all of them.
        """
        found: dict[str, Term] = {}

        async def well() -> bool:
            terms = await self.terms()
            health = await self.asked.get("/health")
            owners = {name: each["owner"] for name, each in health["cluster"]["exchanges"].items()}
            if len(terms) < len(self.markets) or not all(
                owners[name] == term.node
                and by in {None, term.node}
                and (not after or name not in after or term.epoch > after[name].epoch)
                for name, term in terms.items()
            ):
                return False
            await self.windows.read()
            found.update(terms)
            return all(self.first_of(term) is not None for term in terms.values())

        await eventually(well, within=SOON, every=0.1, what="every exchange has an owner")
        return found

    def first_of(self, term: Term) -> Sent | None:
        """The first update that was taken in under a term, as far as it was seen."""
        sent = self.sent_by(term.exchange)
        return next((each for each in sent if term.mark in self.windows.terms_of(each)), None)

    def last_of(self, term: Term) -> Sent | None:
        """The last such update."""
        sent = reversed(self.sent_by(term.exchange))
        return next((each for each in sent if term.mark in self.windows.terms_of(each)), None)

    def missing(self, exchange: str, since: float) -> list[Sent]:
        """What an exchange has sent since then (monotonic seconds) that was never in Redis."""
        return [
            each for each in self.sent_by(exchange) if each.sent_at >= since and not self.windows.has(each)
        ]

    async def flushed(self) -> None:
        """Wait until nothing that was sent is on its way. Use it while the markets are quiet."""
        newest = {market.name: market.sent[-1] for market in self.markets}

        async def there() -> bool:
            await self.windows.read()
            return all(self.windows.has(update) for update in newest.values())

        await eventually(there, within=SOON, every=0.1, what="all is in Redis")

    async def check_answers(self) -> None:
        """Ask the API node again and again: what Redis has acknowledged before is in the answer."""
        while True:
            for exchange in self.exchanges:
                before = await self.windows.of(exchange, "BTCUSDT")
                _, latest = await self.ask(f"/prices/latest/{exchange}/BTCUSDT")
                if before:
                    assert latest.status == 200 or not self.windows.well(exchange), latest
                    # If Redis does not answer this node within its time limit, a row does, and says so.
                    if latest.status == 200 and latest.body["source"] == "redis":
                        self.answers.append(latest.body["timestamp"])
                        assert latest.body["timestamp"] >= max(before), (latest, max(before))
                before = await self.windows.of(exchange, "BTCUSDT")
                _, summary = await self.ask(f"/prices/aggregate/{exchange}/BTCUSDT?period=10s")
                if summary.status == 200:
                    # After an outage of Redis bars are there before all of their updates are in the window.
                    sent = [each for each in self.sent_by(exchange) if each.symbol == "BTCUSDT"]
                    check_count(summary.body, before, [each.timestamp for each in sent])
                elif self.windows.well(exchange):
                    assert not [each for each in before if each > now_ms() - 5_000], summary
            await trio.sleep(0.3)

    async def check_ledgers(self) -> None:
        """Every node's ledgers add up."""
        for node in self.nodes.values():
            if node.runs:
                health = await node.get("/health")
                check_ledger(health["updates"])
                for exchange in health["exchanges"].values():
                    check_ledger(exchange["updates"])

    async def check_rows(self) -> int:
        """Each row equals what the updates that came into Redis make of its interval; returns how many."""
        limit = now_ms() // INTERVAL * INTERVAL - INTERVAL
        wrong: list[object] = []
        expected: dict[Any, Any] = {}

        async def right() -> bool:
            await self.windows.read()
            taken = [update for update in self.sent if self.windows.has(update)]
            taken += self.windows.generated_updates()
            expected.clear()
            expected.update(
                {key: row for key, row in expected_rows(taken, INTERVAL).items() if key[2] <= limit}
            )
            stored = await trio.to_thread.run_sync(stored_rows, self.dsn)
            wrong[:] = differences({key: row for key, row in stored.items() if key[2] <= limit}, expected)
            return not wrong

        try:
            await eventually(right, within=SOON, every=0.3, what="rows")
        except AssertionError:
            raise AssertionError(f"{len(wrong)} of {len(expected)} rows are wrong: {wrong[:3]}") from None
        return len(expected)

    async def check_end(self) -> None:
        """All that must hold at the end: the newest price everywhere, rows, each update once, ledgers."""
        async with quiet(self.markets):
            await self.flushed()
            for market in self.markets:
                for node in self.nodes.values():
                    if node.runs:
                        latest = await node.get(f"/prices/latest/{market.name}/BTCUSDT")
                        newest = max(each.timestamp for each in market.sent if each.symbol == "BTCUSDT")
                        assert latest["timestamp"] == newest, (node.name, latest, newest)
            await self.check_ledgers()
        assert await self.check_rows() > 0
        assert self.windows.twice() == []
        assert self.windows.zombies == []
        assert self.answers


def check_count(answer: Mapping[str, Any], before: Collection[int], sent: Collection[int]) -> None:
    """An answer counts at least the updates that Redis had before, and at most those that were sent."""
    start, end = answer["start"], answer["end"]
    least, most = (sum(start <= each < end for each in found) for found in (before, sent))
    assert least <= answer["updates"] <= most, (least, answer, most)


@asynccontextmanager
async def stage(redis: Redis, dsn: str, directory: Path, **changes: str) -> AsyncIterator[Stage]:
    """A cluster whose nodes serve, and whose exchanges all have an owner. Answers are checked all the time.

    Args:
        redis: the store. It is empty, as is PostgreSQL.
        dsn: of PostgreSQL.
        directory: for logs and spools.
        changes: further settings of the nodes.
    """
    names = await trio.to_thread.run_sync(redis.exchanges, EXCHANGES)
    windows = Windows(redis, names, GENERATED)
    async with (
        markets(*names) as players,
        nodes(ROLES, redis=redis, dsn=dsn, directory=directory) as made,
        trio.open_nursery() as watching,
    ):
        it = Stage(dsn, players, made, windows, changes)
        watching.start_soon(windows.watch)
        async with trio.open_nursery() as starting:
            for name in made:
                starting.start_soon(it.start, name)
        await it.settled()
        watching.start_soon(it.check_answers)
        yield it
        watching.cancel_scope.cancel()


def monotonic() -> float:
    """Seconds of the clock that notes when updates are sent."""
    return time.monotonic()
