"""From one service to nodes on a Redis Cluster, and back: as processes, with the commands of a user."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.cluster.market import Market, markets, quiet
from tests.cluster.nodes import ROOT, Node, nodes
from tests.cluster.stage import ROLES, SOON, Stage
from tests.cluster.stores import ManyRedis, OneRedis
from tests.cluster.windows import Windows
from tests.faults.rig import Sent, eventually

pytestmark = pytest.mark.alone

UNFLUSHED = 0.5
"""Seconds of updates that a killed service may have had in memory only. It is 50 ms on an idle machine."""
PLAYED = 5.0
"""Seconds of updates before a change, and after it: of some intervals."""


@attrs.frozen
class Scene:
    """A single service and the nodes of a cluster on the same database. None of them runs at first."""

    markets: Sequence[Market]
    one: Stage
    """The single service."""
    many: Stage
    redis_url: str
    """The Redis of the single service."""
    directory: Path

    @property
    def single(self) -> Node:
        """The single service."""
        return self.one.nodes["single"]

    @property
    def node(self) -> Node:
        """A node that may have exchanges."""
        return self.many.nodes["one"]

    async def start_nodes(self) -> None:
        """Start them at the same time, and wait until they serve."""
        for name in ROLES:
            await self.many.nodes[name].start(self.markets, {})
        for name in ROLES:
            await self.many.nodes[name].serves()

    async def command(self, name: str, where: str) -> subprocess.CompletedProcess[bytes]:
        """Run it with the settings of a node, and the directory and Redis of the single service."""
        return await trio.run_process(
            [sys.executable, "-m", "marketflow", "cluster", name, where, self.redis_url],
            env=self.node.environment(self.markets, {"STATE_DIR": str(self.directory / "single")}),
            cwd=ROOT,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )

    async def candles(self, node: Node) -> list[dict[str, Any]]:
        """All closed candles of a second. Only bars in Redis tell them."""
        found = []
        for exchange in self.one.exchanges:
            page = await node.get(f"/candles/BTCUSDT?interval=1s&exchange={exchange}&limit=1000")
            found += [{"exchange": exchange} | each for each in page["candles"] if each["closed"]]
        return found

    async def check(
        self, stage: Stage, before: list[dict[str, Any]], *, since: Mapping[str, float]
    ) -> list[Sent]:
        """All running nodes of a stage have these candles and the newest prices; rows are right.

        Nothing was taken in twice, before the change and after it. Returns what is missing of what each
        exchange has sent since then (monotonic seconds).
        """
        running = [each for each in stage.nodes.values() if each.runs]

        async def have_candles() -> bool:
            for each in running:
                now = await self.candles(each)
                if not all(candle in now for candle in before):
                    return False
            return bool(before)

        await eventually(have_candles, within=SOON, every=0.2, what="the candles from before")
        await trio.sleep(PLAYED)
        async with quiet(self.markets):
            await stage.flushed()
            for market in self.markets:
                newest = max(each.timestamp for each in market.sent if each.symbol == "BTCUSDT")
                for each in running:
                    latest = await each.get(f"/prices/latest/{market.name}/BTCUSDT")
                    assert latest["timestamp"] == newest
            await stage.check_ledgers()
            missing = [each for name, begin in since.items() for each in stage.missing(name, begin)]
        assert await stage.check_rows() > 0
        assert stage.windows.twice() == []
        assert stage.windows.zombies == []
        return missing


@asynccontextmanager
async def scene(cluster, redis_url: str, dsn: str, directory: Path) -> AsyncIterator[Scene]:
    """Three exchanges on three masters, the same for all."""
    several, one = ManyRedis(cluster), OneRedis(redis_url)
    failed: AssertionError | None = None
    async with (
        markets(*several.exchanges(3)) as sending,
        nodes({"single": None}, redis=one, dsn=dsn, directory=directory) as alone,
        nodes(ROLES, redis=several, dsn=dsn, directory=directory) as many,
    ):
        names = [each.name for each in sending]
        it = Scene(
            sending,
            Stage(dsn, sending, alone, Windows(one, names, tagged=False), {}),
            Stage(dsn, sending, many, Windows(several, names), {}),
            redis_url,
            directory,
        )
        try:
            yield it
        except AssertionError as error:
            failed = error
    if failed is not None:
        raise failed  # Here, since a traceback shows only ten groups of errors in each other.


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGKILL])
async def test_from_one_to_several(cluster, redis_url, postgres_dsn, tmp_path, stop):
    """Only what was sent while nobody ran is missing; the hour, the newest prices and the rows are whole."""
    async with scene(cluster, redis_url, postgres_dsn, tmp_path) as it:
        await it.one.start("single")
        began_at = time.monotonic()
        await trio.sleep(PLAYED)
        before = await it.candles(it.single)
        gone_at = time.monotonic() - (UNFLUSHED if stop is signal.SIGKILL else 0)
        await it.single.end(stop)

        moved = await it.command("adopt", "--from")
        assert moved.returncode == 0, moved
        assert b"of 6 pairs moved to nodes of a cluster" in moved.stdout

        await it.start_nodes()
        terms = await it.many.settled()
        missing = await it.check(it.many, before, since=dict.fromkeys(terms, began_at))
        taken_at = {exchange: it.many.first_of(term).sent_at for exchange, term in terms.items()}
        for each in missing:
            assert gone_at <= each.sent_at < taken_at[each.exchange], (each, gone_at)


async def test_forgotten_and_done_later(cluster, redis_url, postgres_dsn, tmp_path):
    """A node starts without it, and warns. Done after that, it makes rows and the hour whole."""
    async with scene(cluster, redis_url, postgres_dsn, tmp_path) as it:
        await it.one.start("single")
        await trio.sleep(PLAYED)
        before = await it.candles(it.single)
        await it.single.end(signal.SIGKILL)
        await it.many.start("one")
        await eventually(lambda: has_exchanges(it), within=SOON, every=0.2, what="the node has all exchanges")
        await trio.sleep(PLAYED)
        await it.node.end(signal.SIGTERM)
        (warning,) = (each for each in it.node.events if each["event"] == "last hour not moved")
        assert warning["run"] == "marketflow cluster adopt"

        moved = await it.command("adopt", "--from")
        assert moved.returncode == 0, moved

        await it.many.start("one")
        await it.check(it.many, before, since={})
        assert [each["event"] for each in it.node.events].count("last hour not moved") == 1


async def has_exchanges(it: Scene) -> bool:
    """Whether the first node has all exchanges."""
    health = await it.node.get("/health")
    owners = health["cluster"]["exchanges"]
    return all(owners[exchange]["owner"] == "one" for exchange in it.many.exchanges)


async def test_from_several_to_one(cluster, redis_url, postgres_dsn, tmp_path):
    """The same."""
    async with scene(cluster, redis_url, postgres_dsn, tmp_path) as it:
        await it.start_nodes()
        terms = await it.many.settled()
        await trio.sleep(PLAYED)
        before = await it.candles(it.node)
        await it.many.windows.read()
        began = {exchange: it.many.first_of(term).sent_at for exchange, term in terms.items()}
        gone_at = time.monotonic()
        async with trio.open_nursery() as ending:
            for each in it.many.nodes.values():
                ending.start_soon(each.end, signal.SIGTERM)

        moved = await it.command("leave", "--to")
        assert moved.returncode == 0, moved
        assert b"of 6 pairs moved to a single service" in moved.stdout

        await it.one.start("single")
        served_at = time.monotonic()
        for each in await it.check(it.one, before, since=began):
            assert gone_at <= each.sent_at < served_at, (each, gone_at, served_at)


async def test_refused_beside_a_service(cluster, redis_url, postgres_dsn, tmp_path):
    """One clear line, and nothing is copied."""
    async with scene(cluster, redis_url, postgres_dsn, tmp_path) as it:
        await it.one.start("single")

        refused = await it.command("adopt", "--from")

        assert (refused.returncode, refused.stdout) == (1, b"")
        assert refused.stderr == b"marketflow: another marketflow is running on this database\n"
        assert all(member.ask("DBSIZE") == 0 for member in cluster.members)
