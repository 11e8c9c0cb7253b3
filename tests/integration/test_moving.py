"""What a single service has in Redis and in its spool comes to nodes whole, and back, on real stores."""

from __future__ import annotations

import time
from itertools import count

import attrs
import psycopg
import pytest
import redis
import trio
from structlog.testing import capture_logs
from test_redis_rights import rights

from marketflow.adapters.cache import copying
from marketflow.adapters.cache.bar_fields import field_name
from marketflow.adapters.db.cluster import ClusterDatabase
from marketflow.adapters.db.lock import LOCK
from marketflow.adapters.db.postgres import PostgresStore
from marketflow.adapters.state.spool import encode
from marketflow.app.ports import Node, StoreAway, StoreTaken, StoreUnfit, Term
from marketflow.app.share.spooling import SpooledBar
from marketflow.cluster_outside import node_spool
from marketflow.config import Settings
from marketflow.config.settings import ExchangeSettings
from marketflow.domain.bars import Bar
from marketflow.domain.packed_bars import pack_bar
from marketflow.domain.periods import HOUR, MINUTE, floor_to
from marketflow.moving import move
from marketflow.outside import single_spool
from tests.servers import free_port

PAIR = "exchange1", "BTCUSDT"
BOOT = "a1b2c3d4"
NOW = floor_to(time.time_ns() // 1_000_000, MINUTE)


def bar_of(second: int, count: int) -> Bar:
    """A bar with that many updates."""
    return Bar(count, 100.0, 90.0, 110.0, 100.0, second, 1, 101.0, second + 999, 9)


def hash_of(*counts: int, boot: str = BOOT) -> dict[bytes, bytes]:
    """The fields and values of the bars of seconds, the newest first, with so many updates each."""
    return {
        field_name((second, boot)): pack_bar(bar_of(second, count), second)
        for second, count in zip(range(NOW, 0, -1_000), counts, strict=False)
    }


@attrs.frozen
class Stores:
    """The stores of a test, and settings that name them."""

    settings: Settings
    url: str
    redis: redis.Redis

    async def move(self, use="nodes of a cluster", url=None, progress=lambda _: None):
        """Move everything."""
        return await move(self.settings, use, url or self.url, now=NOW, boot="f0f0f0f0", progress=progress)


@pytest.fixture
def stores(redis_url, postgres_dsn, tmp_path):
    """One Redis for both, with what a single service has of a pair."""
    settings = attrs.evolve(
        Settings(),
        symbols=("BTCUSDT", "DOGEUSDT"),
        exchanges=(
            ExchangeSettings("exchange1", "127.0.0.1", 1),
            ExchangeSettings("exchange2", "127.0.0.1", 1),
        ),
        state_dir=tmp_path,
    )
    settings = attrs.evolve(
        settings,
        redis=attrs.evolve(settings.redis, url=redis_url, timeout=5_000),
        postgres=attrs.evolve(settings.postgres, dsn=postgres_dsn),
    )
    with redis.Redis.from_url(redis_url) as client:
        client.zadd(
            "prices:exchange1:BTCUSDT", {f"{price}:{price:011}:c3d4": NOW + price for price in range(1, 9)}
        )
        client.expire("prices:exchange1:BTCUSDT", 50)
        client.hset("bars:exchange1:BTCUSDT", mapping=hash_of(5, 6, 7))
        client.expire("bars:exchange1:BTCUSDT", 3_000)
        yield Stores(settings, redis_url, client)


async def test_all_is_copied(stores):
    """Members and fields, their expiries, and symbols that are not configured any more."""
    stores.redis.hset("bars:exchange2:OLDUSDT", mapping=hash_of(3))

    moved = await stores.move()

    assert (moved.copied.pairs, moved.copied.updates, moved.copied.bars) == (2, 8, 4)
    client = stores.redis
    for kind, ttl in (("prices", 50), ("bars", 3_000)):
        assert ttl - 20 < client.ttl(f"{kind}:{{exchange1}}:BTCUSDT") <= ttl
    assert client.hgetall("bars:{exchange1}:BTCUSDT") == client.hgetall("bars:exchange1:BTCUSDT")
    assert client.hgetall("bars:{exchange2}:OLDUSDT") == hash_of(3)
    old = client.zrange("prices:exchange1:BTCUSDT", 0, -1, withscores=True)
    assert client.zrange("prices:{exchange1}:BTCUSDT", 0, -1, withscores=True) == old
    assert len(old) == 8
    # A restart of either waits for nothing.
    assert client.get("marketflow:lock") is None


async def test_parts(stores, monkeypatch):
    """Windows and bars that are longer than one write."""
    monkeypatch.setattr(copying, "COPIED_AT_ONCE", 3)
    monkeypatch.setattr(copying, "MEMBERS_PER_COMMAND", 2)
    monkeypatch.setattr(copying, "FIELDS_PER_COMMAND", 2)
    told = []

    await stores.move(progress=lambda copied: told.append(copied.updates))

    assert stores.redis.zcard("prices:{exchange1}:BTCUSDT") == 8
    assert stores.redis.hlen("bars:{exchange1}:BTCUSDT") == 3
    assert told[:3] == [3, 6, 8]


async def test_there_and_back_again(stores):
    """Of two copies of a bar the one with more updates stays, in each direction."""
    await stores.move()
    client = stores.redis
    client.hset("bars:{exchange1}:BTCUSDT", mapping=hash_of(5, 9, 2) | hash_of(4, boot="0a0b0c0d"))

    await stores.move("a single service")

    wanted = hash_of(5, 9, 7) | hash_of(4, boot="0a0b0c0d")
    assert client.hgetall("bars:exchange1:BTCUSDT") == wanted
    client.delete("bars:{exchange1}:BTCUSDT")

    await stores.move()

    assert client.hgetall("bars:{exchange1}:BTCUSDT") == wanted


async def test_a_second_run_ends_what_a_first_one_has_begun(stores, monkeypatch):
    """Killed in the middle of a window, it is whole after another run, and nothing is there twice."""
    monkeypatch.setattr(copying, "COPIED_AT_ONCE", 3)

    def kill(_) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await stores.move(progress=kill)
    assert stores.redis.zcard("prices:{exchange1}:BTCUSDT") == 3

    await stores.move()

    assert stores.redis.zcard("prices:{exchange1}:BTCUSDT") == 8
    assert stores.redis.hlen("bars:{exchange1}:BTCUSDT") == 3


async def test_spool(stores):
    """Bars that Redis would have go there; older ones, and those of minutes, to the other spool."""
    old = SpooledBar(PAIR, NOW - HOUR - MINUTE, BOOT, bar_of(NOW - HOUR - MINUTE, 3), whole=True)
    fuller = SpooledBar(PAIR, NOW, BOOT, bar_of(NOW, 8), whole=False)
    lesser = SpooledBar(PAIR, NOW - 1_000, BOOT, bar_of(NOW - 1_000, 1), whole=False)
    unseen = SpooledBar(("exchange2", "DOGEUSDT"), NOW, BOOT, bar_of(NOW, 2), whole=False)
    await single_spool(stores.settings, stores.url).save([old, fuller, lesser, unseen])

    moved = await stores.move()

    assert (moved.spooled, moved.kept) == (3, 1)
    assert stores.redis.hgetall("bars:{exchange1}:BTCUSDT") == hash_of(8, 6, 7)
    assert stores.redis.hgetall("bars:{exchange2}:DOGEUSDT") == hash_of(2)
    assert 0 < stores.redis.ttl("bars:{exchange2}:DOGEUSDT") <= 3_600
    assert await single_spool(stores.settings, stores.url).load() == []
    assert await node_spool(stores.settings, "exchange1").load() == [old]

    await stores.move("a single service")

    assert await single_spool(stores.settings, stores.url).load() == [old]
    assert await node_spool(stores.settings, "exchange1").load() == []


async def test_a_single_service_gets_what_terms_have_left_in_the_database(stores):
    """Bars that a node has left for the next owner, since Redis was away when it stopped."""
    await stores.move()
    old = SpooledBar(PAIR, NOW - 2 * HOUR, "0badbabe", bar_of(NOW - 2 * HOUR, 4), whole=True)
    with psycopg.connect(stores.settings.postgres.dsn) as connection:
        insert = "INSERT INTO marketflow_spool (exchange, term, bars) VALUES (%s, %s, %s)"
        connection.execute(insert, ["exchange1", "0badbabe", encode([old]).decode()])
    await stores.move("a single service")
    assert await single_spool(stores.settings, stores.url).load() == [old]
    with psycopg.connect(stores.settings.postgres.dsn) as connection:
        assert connection.execute("SELECT count(*) FROM marketflow_spool").fetchone() == (0,)
        connection.execute(insert, ["exchange1", "0badbabe", "nonsense"])
    with pytest.raises(StoreUnfit, match="marketflow_spool"):
        await stores.move("a single service")


async def test_spool_stays_if_the_copy_fails(stores):
    """As long as the new place has not all."""
    spooled = SpooledBar(PAIR, NOW, BOOT, bar_of(NOW, 8), whole=False)
    await single_spool(stores.settings, stores.url).save([spooled])
    stores.redis.set("bars:{exchange1}:BTCUSDT", "of another type")

    with pytest.raises(StoreAway, match="the nodes' Redis: WRONGTYPE"):
        await stores.move()

    assert await single_spool(stores.settings, stores.url).load() == [spooled]


# ---- who may not be there ----


@pytest.mark.parametrize("mode", ["", "_shared"])
async def test_refused_while_somebody_has_the_database(stores, monkeypatch, mode):
    """A single service, or a node."""
    monkeypatch.setattr("marketflow.adapters.db.sole_use.LEASE_PATIENCE", 0.5)
    with psycopg.connect(stores.settings.postgres.dsn) as connection:
        connection.execute(f"SELECT pg_advisory_lock{mode}({LOCK})")
        with pytest.raises(StoreTaken):
            await stores.move()

    assert stores.redis.keys("*{*") == []


async def test_refused_while_a_lease_is_good(stores, monkeypatch):
    """Its node may have lost only its connection to the database."""
    monkeypatch.setattr("marketflow.adapters.db.sole_use.LEASE_PATIENCE", 0.5)
    term = Term("exchange1", 1, "0123abcd")
    await take(stores, term, lasts=60_000)
    cluster = attrs.evolve(stores.settings.cluster, lease_ttl=60_000)
    patient = attrs.evolve(stores, settings=attrs.evolve(stores.settings, cluster=cluster))

    with pytest.raises(StoreTaken, match="node1 has exchange1"):
        await patient.move()


async def test_refused_while_a_service_writes_to_redis(stores):
    """It may have lost its database, and goes on."""
    stores.redis.set("marketflow:lock", BOOT)

    async def write() -> None:
        for number in count():
            stores.redis.set("marketflow:marker", f"{BOOT}:{number}")
            await trio.sleep(0.1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        with pytest.raises(StoreTaken, match="running on this Redis"):
            await stores.move()
        nursery.cancel_scope.cancel()

    assert not stores.redis.exists("bars:{exchange1}:BTCUSDT")


async def test_lease_of_a_killed_service_is_taken_over(stores):
    """It does not write any more."""
    stores.redis.set("marketflow:lock", BOOT, ex=3_600)
    stores.redis.set("marketflow:marker", f"{BOOT}:1")

    moved = await stores.move()

    assert moved.copied.updates == 8


async def test_refused_if_the_cluster_is_of_another_database(stores):
    """Both may have taken in the same updates: put together they would count twice."""
    stores.redis.set("fence:{exchange1}", "7:0123abcd")

    with pytest.raises(StoreUnfit, match=r"exchange1 .* 7:0123abcd there, and none here"):
        await stores.move()

    await take(stores, Term("exchange1", 7, "0123abcd"), lasts=1)
    await stores.move()
    assert stores.redis.get("fence:{exchange1}") == b"7:moving"


async def test_refused_if_bars_of_nobody_are_there(stores):
    """Without a fence nobody knows whose they are."""
    stores.redis.hset("bars:{exchange1}:BTCUSDT", mapping=hash_of(1, boot="0a0b0c0d"))

    with pytest.raises(StoreUnfit, match="unknown there, and none here"):
        await stores.move()


async def test_a_node_that_begins_meanwhile_ends_it(stores, monkeypatch):
    """What is written after that has no effect."""
    monkeypatch.setattr(copying, "COPIED_AT_ONCE", 3)

    def seal(_) -> None:
        stores.redis.set("fence:{exchange1}", "1:0123abcd")

    with pytest.raises(StoreAway, match="the nodes' Redis: the fence has changed"):
        await stores.move(progress=seal)

    assert stores.redis.zcard("prices:{exchange1}:BTCUSDT") == 3


@pytest.mark.parametrize("use", ["nodes of a cluster", "a single service"])
async def test_a_service_that_begins_meanwhile_ends_it(stores, monkeypatch, use):
    """It has the lease on Redis then."""
    await stores.move()
    stores.redis.delete("bars:exchange1:BTCUSDT", "bars:{exchange2}:BTCUSDT")
    monkeypatch.setattr(copying, "COPIED_AT_ONCE", 3)

    def begin(_) -> None:
        stores.redis.set("marketflow:lock", BOOT)

    with pytest.raises(StoreTaken, match="was lost meanwhile"):
        await stores.move(use, progress=begin)


async def test_redis_away(stores):
    """It says which."""
    with pytest.raises(StoreAway, match="single service's Redis: "):
        await stores.move(url=f"redis://127.0.0.1:{free_port()}/0")


async def test_a_start_without_it_warns(stores):
    """Of each kind after the other, once; and not if all was moved."""

    async def warnings(*, nodes: bool) -> list[str]:
        dsn, interval = stores.settings.postgres.dsn, stores.settings.aggregation.interval
        with capture_logs() as logs:
            if nodes:
                async with ClusterDatabase(dsn, interval=interval, timeout=5, lease_timeout=5) as database:
                    await database.leases.look()
                    await database.leases.release([])
            else:
                async with PostgresStore(dsn, interval=interval, timeout=5) as store:
                    await store.lease()
        return [each["run"] for each in logs if each["event"] == "last hour not moved"]

    assert await warnings(nodes=False) == []
    assert await warnings(nodes=False) == []
    assert await warnings(nodes=True) == ["marketflow cluster adopt"]
    assert await warnings(nodes=True) == []
    assert await warnings(nodes=False) == ["marketflow cluster leave"]
    await stores.move()
    assert await warnings(nodes=True) == []
    await stores.move("a single service")
    assert await warnings(nodes=False) == []


async def test_users_need_no_more_rights_than_the_documents_list(own_redis, stores):
    """Those of a single service and of a node, and what cluster.md adds."""
    with redis.Redis.from_url(own_redis.url) as client:
        for number, more in enumerate((["+pttl"], ["+pttl", "+pexpire"])):
            setting, name, user, *words = rights(number)
            client.execute_command(setting, name, f"{user}{number}", *words, *more)
        client.hset("bars:exchange1:BTCUSDT", mapping=hash_of(5, 6, 7))
        client.expire("bars:exchange1:BTCUSDT", 3_000)
        client.zadd("prices:exchange1:BTCUSDT", {"1:00000000001:c3d4": NOW})
        client.expire("prices:exchange1:BTCUSDT", 50)
        single, node = (own_redis.url.replace("//", f"//marketflow{number}:secret@") for number in (0, 1))
        it = Stores(
            attrs.evolve(stores.settings, redis=attrs.evolve(stores.settings.redis, url=node)), node, client
        )

        moved = await it.move(url=single)
        await it.move("a single service", url=single)

        assert (moved.copied.updates, moved.copied.bars) == (1, 3)
        assert {entry["object"] for entry in client.acl_log()} == set()


async def take(stores: Stores, term: Term, *, lasts: int) -> None:
    """Have a node take a lease, and go without giving it back."""
    settings = stores.settings
    async with ClusterDatabase(
        settings.postgres.dsn, interval=settings.aggregation.interval, timeout=5, lease_timeout=5
    ) as database:
        node = Node("node1", "b0b0b0b0", "http://127.0.0.1:1", "all", "0")
        assert await database.leases.take(term, node, lasts, None)
