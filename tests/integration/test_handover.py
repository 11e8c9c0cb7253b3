"""Two nodes on real stores, and exchanges that send one sequence to all: moves and stops lose nothing."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager

import attrs
import pytest
import redis
import trio

from marketflow.adapters.cache.members import read_member
from marketflow.cluster_service import serve_node
from marketflow.config import ExchangeSettings, Settings
from tests.cluster.market import markets, quiet
from tests.faults.rig import BASE, eventually
from tests.servers import free_port

SOON = 20.0
"""Seconds, of looks."""
NAMES = ("exchange1", "exchange2")


class Nodes:
    """The nodes that run in this process."""

    def __init__(self, settings: Settings, nursery: trio.Nursery) -> None:
        self._settings = settings
        self._nursery = nursery
        self._running: dict[str, tuple[trio.Event, trio.Event]] = {}

    async def start(self, name: str) -> None:
        """Start a node, and wait until it serves."""
        settings = attrs.evolve(
            self._settings,
            http=attrs.evolve(self._settings.http, port=free_port()),
            state_dir=self._settings.state_dir / name,
            cluster=attrs.evolve(self._settings.cluster, node=name),
        )
        self._running[name] = trio.Event(), trio.Event()
        await self._nursery.start(self._serve, settings, *self._running[name])

    @staticmethod
    async def _serve(settings, stopping, ended, task_status):
        await serve_node(settings, stopping, task_status=task_status)
        ended.set()

    async def stop(self, name: str) -> None:
        """Stop a node in order."""
        stopping, ended = self._running.pop(name)
        stopping.set()
        await ended.wait()

    async def stop_all(self) -> None:
        """Stop those that are left."""
        for name in list(self._running):
            await self.stop(name)


@asynccontextmanager
async def nodes_on(redis_url, dsn, directory, exchanges, *, standby=False):
    """No node yet; all have stopped at the end."""
    defaults = Settings()
    settings = attrs.evolve(
        defaults,
        exchanges=tuple(
            ExchangeSettings(each.name, "127.0.0.1", each.port, shared=True) for each in exchanges
        ),
        symbols=tuple(BASE),
        redis=attrs.evolve(defaults.redis, url=redis_url),
        postgres=attrs.evolve(defaults.postgres, dsn=dsn),
        state_dir=directory,
        cluster=attrs.evolve(defaults.cluster, enabled=True, settle=1_000, standby=standby),
    )
    async with trio.open_nursery() as nursery:
        nodes = Nodes(settings, nursery)
        yield nodes
        await nodes.stop_all()


class Stored:
    """What Redis has."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url)

    def updates(self, exchange: str) -> Counter[tuple[str, int, float]]:
        """(symbol, timestamp, price), as often as they are there."""
        found: Counter[tuple[str, int, float]] = Counter()
        for symbol in BASE:
            key = f"prices:{{{exchange}}}:{symbol}"
            members = self._client.zrange(key, 0, -1, withscores=True)
            for member, score in members:
                update = read_member((exchange, symbol), member, score)
                found[symbol, update.timestamp, update.price] += 1
        return found

    def terms(self, exchange: str) -> int:
        """The epoch of the last term."""
        fence = self._client.get(f"fence:{{{exchange}}}")
        return 0 if fence is None else int(fence.partition(b":")[0])


def sent_by(market, since=0):
    """The same, of what a market has sent."""
    return Counter((each.symbol, each.timestamp, each.price) for each in market.sent[since:])


@pytest.mark.parametrize("standby", [False, True], ids=["", "standby"])
async def test_moves_and_stops_lose_and_double_nothing(redis_url, postgres_dsn, tmp_path, standby):
    stored = Stored(redis_url)
    async with (
        markets(*NAMES) as exchanges,
        nodes_on(redis_url, postgres_dsn, tmp_path, exchanges, standby=standby) as nodes,
    ):
        await nodes.start("a")
        await eventually(
            lambda: all(stored.updates(name) for name in NAMES), within=SOON, what="the first updates"
        )
        since = [len(each.sent) for each in exchanges]
        epochs = Counter({name: stored.terms(name) for name in NAMES})

        async def handed_over(count, what):
            await eventually(
                lambda: sum(stored.terms(name) - epochs[name] for name in NAMES) >= count,
                within=SOON,
                what=what,
            )

        await nodes.start("b")
        await handed_over(1, "a move")
        await trio.sleep(0.3)
        await nodes.stop("a")
        await handed_over(2, "the other exchange, after a stop")
        await nodes.start("a")
        await handed_over(3, "a move back")
        await nodes.stop("b")
        await handed_over(4, "the other exchange, after the second stop")
        async with quiet(exchanges):
            expected = {each.name: sent_by(each, first) for each, first in zip(exchanges, since, strict=True)}
            await eventually(
                lambda: not any(expected[name] - stored.updates(name) for name in NAMES),
                within=SOON,
                what="all updates",
            )
            for each in exchanges:
                assert stored.updates(each.name) - sent_by(each) == Counter()
