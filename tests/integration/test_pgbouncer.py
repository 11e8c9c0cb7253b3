"""Poolers between us and PostgreSQL: session pooling works, any other mode is detected."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from contextlib import asynccontextmanager

import psycopg
import pytest
import trio
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from marketflow.adapters.db.cluster import ClusterDatabase
from marketflow.adapters.db.postgres import PostgresStore
from marketflow.app.ports import Aggregate, Node, StoreAway, StoreTaken, StoreUnfit, Term
from marketflow.domain.bars import Bar
from marketflow.domain.periods import MINUTE, Span

PGBOUNCER = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")
pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")

PAIR = ("exchange1", "BTCUSDT")
EVER = Span(0, 10**15)
ROW = Aggregate(*PAIR, MINUTE, Bar(1, 3.0, 3.0, 3.0, 3.0, 5, 0, 3.0, 5, 0))
BARS = {PAIR: {0: ROW.bar}}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Pooler:
    """A pgbouncer in front of a database, with its default settings except for the given ones."""

    def __init__(self, dsn, directory):
        self.parameters = conninfo_to_dict(dsn)
        self.directory = directory
        self.port = free_port()
        self.dsn = make_conninfo(dsn, host="127.0.0.1", port=self.port)

    def configure(self, **settings):
        there = "host={host} port={port} dbname={dbname}".format_map(self.parameters)
        lines = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "auth_type": "any",
            "unix_socket_dir": "",
            "admin_users": "admin",
            "pidfile": self.directory / "pid",
        } | settings
        # With auth_type any, all clients connect as one user, which is set here.
        text = [
            "[databases]",
            f"{self.parameters['dbname']} = {there} user={self.parameters['user']}",
            "[pgbouncer]",
        ]
        text += [f"{name} = {value}" for name, value in lines.items()]
        (self.directory / "pgbouncer.ini").write_text("\n".join(text) + "\n")

    def reload(self, **settings):
        self.configure(**settings)
        with psycopg.connect(
            make_conninfo(self.dsn, dbname="pgbouncer", user="admin"), autocommit=True
        ) as admin:
            admin.execute("RELOAD")


@pytest.fixture
def pooler(postgres_dsn, server_directory):
    """Runs a pooler with the given settings, until the end of the test."""
    it = Pooler(postgres_dsn, server_directory)

    @asynccontextmanager
    async def run(**settings):
        it.configure(**settings)
        options = {}
        if os.geteuid() == 0:  # It refuses to run as root.
            nobody = pwd.getpwnam("nobody")
            os.chown(server_directory, nobody.pw_uid, nobody.pw_gid)
            options = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        process = subprocess.Popen(  # noqa: ASYNC220 - takes no time
            [PGBOUNCER, server_directory / "pgbouncer.ini"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **options,
        )
        try:
            with trio.fail_after(40):
                while not listens(it.port):
                    assert process.poll() is None
                    await trio.sleep(0.02)
            yield it
        finally:
            process.kill()
            process.wait()

    return run


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def store(dsn, timeout=10):
    return PostgresStore(dsn, interval=MINUTE, timeout=timeout)


async def test_session_pooling_works(pooler):
    """It works with pgbouncer's defaults, which refuse `options`. The lock excludes others until the end."""
    async with pooler(pool_mode="session") as it:
        async with store(it.dsn) as first, store(it.dsn) as second:
            hold = await first.lease()
            await first.write([ROW])
            assert await first.bars([PAIR], EVER, MINUTE) == BARS
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(first.newest, [PAIR])
            with pytest.raises(StoreTaken):
                await second.lease()
            assert await first.lease() == hold
        async with store(it.dsn) as third:
            with trio.fail_after(30):
                while True:
                    try:
                        await third.lease()
                    except StoreTaken:
                        await trio.sleep(0.05)
                    else:
                        break
            await third.write([ROW])


@pytest.mark.parametrize("mode", ["transaction", "statement"])
@pytest.mark.parametrize(
    "how", [{}, {"default_pool_size": 1}, {"server_round_robin": 1}, {"min_pool_size": 5}]
)
async def test_a_pooler_that_shares_processes_is_refused(pooler, mode, how):
    """The first lease fails with advice, with any server process that the pooler gives us next."""
    async with pooler(pool_mode=mode, **how) as it, store(it.dsn) as ours:
        with pytest.raises(StoreUnfit, match="use session pooling or connect directly"):
            await ours.lease()


@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_nodes_of_a_cluster_need_session_pooling_too(pooler, mode):
    """Their leases are written in pipelines, which the pooler passes on."""
    term, node = Term("exchange1", 1, "t1"), Node("a", "a1", "http://a", "all", "0")
    async with (
        pooler(pool_mode=mode) as it,
        ClusterDatabase(it.dsn, interval=MINUTE, timeout=10, lease_timeout=10) as database,
    ):
        if mode == "transaction":
            for call in (database.leases.look, database.store(term).lease):
                with pytest.raises(StoreUnfit, match="use session pooling or connect directly"):
                    await call()
            return
        assert await database.leases.take(term, node, MINUTE, None)
        for _ in range(10):
            assert (await database.leases.beat(node, [term], MINUTE)).nodes["a"].node == node
        store = database.store(term)
        await store.lease()
        await store.write([ROW])
        assert await store.bars([PAIR], EVER, MINUTE) == BARS


async def test_a_pooler_that_begins_to_share_is_away_until_it_does_not(pooler):
    """An end of the service would lose collected data. Nothing is written meanwhile."""
    async with pooler(pool_mode="session") as it, store(it.dsn, timeout=6) as ours:
        before = await ours.lease()
        it.reload(pool_mode="transaction")
        with psycopg.connect(it.dsn, autocommit=True) as other:  # It may get our server process.
            with trio.fail_after(40):
                while True:
                    try:
                        await ours.lease()
                    except StoreAway as error:
                        reason = str(error)
                        if "session pooling" in reason:
                            break
                    other.execute("SELECT pg_advisory_unlock_all()")
                    await trio.sleep(0.02)
        with pytest.raises(StoreAway):
            await ours.write([ROW])
        it.reload(pool_mode="session")
        with trio.fail_after(40):
            while True:
                try:
                    after = await ours.lease()
                except (StoreAway, StoreTaken):
                    await trio.sleep(0.05)
                else:
                    break
        assert after != before
        await ours.write([ROW])


async def test_a_small_pool_is_shared_by_questions(pooler):
    """With three connections the writer has one, and questions wait for the others."""
    async with pooler(pool_mode="session", default_pool_size=3) as it, store(it.dsn, timeout=6) as ours:
        await ours.lease()
        await ours.write([ROW])
        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(ours.newest, [PAIR])
        assert await ours.bars([PAIR], EVER, MINUTE) == BARS
