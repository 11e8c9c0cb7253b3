"""The map of a Redis Cluster, asked of a server that answers as a test wants."""

from __future__ import annotations

import pytest
import trio
from wire_commands import commands_of

from marketflow.adapters.cache.cluster import READ_EVERY, ClusterServers
from marketflow.adapters.cache.redirects import Address
from marketflow.adapters.cache.resp import ErrorReply
from marketflow.adapters.cache.url import access_of
from marketflow.app.ports import StoreAway, StoreUnfit

NO_CLUSTER = b"-ERR This instance has cluster support disabled\r\n"


class OnlyServer:
    """The only server of a cluster, until it belongs to none."""

    def __init__(self) -> None:
        self.in_a_cluster = True
        self.address = Address("", 0)

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            async for data in stream:
                await stream.send_all(b"".join(map(self._answer, commands_of(data))))

    def _answer(self, command: list[bytes]) -> bytes:
        match command:
            case [b"CONFIG", *_]:
                return b"*0\r\n"
            case _ if not self.in_a_cluster:
                return NO_CLUSTER
            case [_, b"INFO"]:
                return b"$16\r\ncluster_state:ok\r\n"
            case _:
                return b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n" % self.address.port


@pytest.fixture
async def server(nursery):
    made = OnlyServer()
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    made.address = Address("127.0.0.1", listener.socket.getsockname()[1])
    nursery.start_soon(trio.serve_listeners, made.serve, [listener])
    return made


@pytest.fixture
def cluster(server):
    made = ClusterServers(access_of("redis://unused", 10.0), [server.address])
    yield made
    made.close()


async def test_a_server_that_belongs_to_no_cluster_is_unfit_at_first(server, cluster):
    server.in_a_cluster = False
    with pytest.raises(StoreUnfit, match="belongs to no Redis Cluster"):
        await cluster.of("exchange1")


async def test_a_known_cluster_is_away_if_a_server_belongs_to_none(server, cluster):
    """Another server may have the address of one that is gone: that ends no node."""
    await cluster.of("exchange1")
    server.in_a_cluster = False
    await trio.sleep(READ_EVERY)
    cluster.doubt()
    with pytest.raises(StoreAway, match="cluster support disabled"):
        await cluster.of("exchange1")
    server.in_a_cluster = True
    await trio.sleep(READ_EVERY)
    assert (await cluster.of("exchange1")).opener.host == "127.0.0.1"


async def test_where_servers_have_sent_us_is_counted_by_answer(server, cluster):
    """All answers are there from the start, so that a rate can be told."""
    assert {answer.value: count for answer, count in cluster.redirects.items()} == {
        "moved": 0,
        "ask": 0,
        "later": 0,
    }
    only = await cluster.of("exchange1")
    for error in (f"MOVED 1 127.0.0.1:{server.address.port}", "TRYAGAIN", "TRYAGAIN"):
        await cluster.follow(only, ErrorReply(error))
    assert {answer.value: count for answer, count in cluster.redirects.items()} == {
        "moved": 1,
        "ask": 0,
        "later": 2,
    }
