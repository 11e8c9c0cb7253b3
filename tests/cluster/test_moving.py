"""From a single service to nodes on a Redis Cluster and back: as processes, with the commands of a user."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import attrs
import pytest
import trio

from tests.cluster.market import markets, quiet
from tests.cluster.nodes import ROOT, nodes
from tests.cluster.stage import SOON, Stage
from tests.cluster.stores import ManyRedis, OneRedis
from tests.cluster.windows import Windows
from tests.faults.rig import eventually

pytestmark = pytest.mark.alone

UNFLUSHED = 0.5
"""Seconds of updates that a killed service may have had in memory only. It is 50 ms on an idle machine."""


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGKILL])
async def test_there_and_back(cluster, redis_url, postgres_dsn, tmp_path, stop):
    """Only what was sent while nobody ran is missing; nothing is there twice; rows and candles are right."""
    many, one = ManyRedis(cluster), OneRedis(redis_url)
    roles = {"one": "ingest", "two": "all", "three": "api"}
    async with (
        markets(*many.exchanges(3)) as sending,
        nodes({"single": None}, redis=one, dsn=postgres_dsn, directory=tmp_path) as alone,
        nodes(roles, redis=many, dsn=postgres_dsn, directory=tmp_path) as several,
    ):
        names = [each.name for each in sending]
        single = alone["single"]
        as_single = Stage(postgres_dsn, sending, alone, Windows(one, names, tagged=False), {})
        as_nodes = Stage(postgres_dsn, sending, several, Windows(many, names), {})

        async def move(command: str) -> subprocess.CompletedProcess[bytes]:
            """Run a command with the settings of a node, and the single service's directory and Redis."""
            where = {"adopt": "--from", "leave": "--to"}[command]
            changes = {"STATE_DIR": str(tmp_path / "single")}
            return await trio.run_process(
                [sys.executable, "-m", "marketflow", "cluster", command, where, redis_url],
                env=several["one"].environment(sending, changes),
                cwd=ROOT,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )

        await as_single.start("single")
        began_at = time.monotonic()
        await trio.sleep(6)
        refused = await move("adopt")
        assert (refused.returncode, refused.stdout) == (1, b"")
        assert (
            refused.stderr.decode().splitlines()[-1].startswith("marketflow: another marketflow is running")
        )

        candles = await candles_of(single, names)
        gone_at = time.monotonic() - (UNFLUSHED if stop is signal.SIGKILL else 0)
        await single.end(stop)
        moved = await move("adopt")
        assert moved.returncode == 0, moved
        assert b"of 6 pairs moved to nodes" in moved.stdout
        again = await move("adopt")
        assert (again.returncode, again.stdout) == (0, moved.stdout)

        for name in roles:
            await several[name].start(sending, {})
        for name in roles:
            await several[name].serves()
        terms = await as_nodes.settled()
        for name in roles:
            await eventually(
                lambda name=name: has_all(several[name], names, candles),
                within=SOON,
                every=0.2,
                what="candles",
            )
        refused = await move("leave")
        assert (refused.returncode, refused.stdout) == (1, b"")
        await trio.sleep(3)
        async with quiet(sending):
            await as_nodes.flushed()
            for exchange in names:
                newest = max(
                    each.timestamp for each in as_nodes.sent_by(exchange) if each.symbol == "BTCUSDT"
                )
                for name in roles:
                    latest = await several[name].get(f"/prices/latest/{exchange}/BTCUSDT")
                    assert latest["timestamp"] == newest
        for exchange in names:
            first = as_nodes.first_of(terms[exchange])
            missing = as_nodes.missing(exchange, began_at)
            assert all(gone_at <= each.sent_at < first.sent_at for each in missing), exchange
        assert await as_nodes.check_rows() > 0

        # ---- and back ----
        candles = await candles_of(several["one"], names)
        gone_at = time.monotonic()
        async with trio.open_nursery() as ending:
            for name in roles:
                ending.start_soon(several[name].end, signal.SIGTERM)
        await as_nodes.windows.read()
        moved = await move("leave")
        assert moved.returncode == 0, moved
        assert b"of 6 pairs moved to a single service" in moved.stdout
        as_single.windows.members.update(as_nodes.windows.members)
        await as_single.start("single")
        started_at = time.monotonic()
        await eventually(
            lambda: has_all(single, names, candles), within=SOON, every=0.2, what="candles of the nodes"
        )
        await trio.sleep(3)
        async with quiet(sending):
            await as_single.flushed()
            for exchange in names:
                newest = max(
                    each.timestamp for each in as_single.sent_by(exchange) if each.symbol == "BTCUSDT"
                )
                latest = await single.get(f"/prices/latest/{exchange}/BTCUSDT")
                assert latest["timestamp"] == newest
        for exchange in names:
            since = as_nodes.first_of(terms[exchange]).sent_at
            missing = as_single.missing(exchange, since)
            assert all(gone_at <= each.sent_at < started_at for each in missing), exchange
        assert await as_single.check_rows() > 0
        for each in (as_single, as_nodes):
            assert each.windows.twice() == []
            assert each.windows.zombies == []


async def candles_of(node, exchanges):
    """The closed candles of each exchange. Those of a second come from bars in Redis alone."""
    found = {}
    for exchange in exchanges:
        page = await node.get(f"/candles/BTCUSDT?interval=1s&exchange={exchange}&limit=1000")
        found[exchange] = [each for each in page["candles"] if each["closed"]]
    return found


async def has_all(node, exchanges, candles) -> bool:
    """Whether a node has all of these candles, unchanged."""
    now = await candles_of(node, exchanges)
    return all(each in now[exchange] for exchange in exchanges for each in candles[exchange])
