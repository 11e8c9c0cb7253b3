"""The connection that writes for one term, on servers that answer as a test wants."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import pytest
import trio
from wire_commands import commands_of

from marketflow.adapters.cache.failures import Failures
from marketflow.adapters.cache.fenced import FencedWriter, Transaction
from marketflow.adapters.cache.members import pack
from marketflow.adapters.cache.redirects import Direction, direction_of
from marketflow.adapters.cache.servers import server_at
from marketflow.adapters.cache.url import access_of
from marketflow.app.ports import StoreAway, Term

TERM = Term("exchange1", 1, "t1")
LOOK = b"+OK\r\n+OK\r\n$4\r\n1:t1\r\n$-1\r\n"
"""The fence is ours, and there is no marker."""
AGAIN = LOOK.removesuffix(b"$-1\r\n")
"""The same without the marker."""
WRITTEN = b"+OK\r\n+QUEUED\r\n*1\r\n:1\r\n"
MOVED = b"-MOVED 1 elsewhere:1\r\n"
WRITE = Transaction([pack(b"INCR", b"counter")], 1)


@attrs.define
class Peer:
    """A server that gives these answers to requests, in turn."""

    answers: list[bytes]
    requests: list[list[bytes]] = attrs.field(factory=list)
    port: int = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        received = b""
        async with stream:
            async for piece in stream:
                received += piece
                names = [command[0] for command in commands_of(received)]
                if names[-1:] == [b"GET"]:  # it ends each request
                    received = b""
                    self.requests.append(names)
                    await stream.send_all(self.answers.pop(0))


class TwoServers:
    """Fills the port Servers: the second server is asked after `MOVED`."""

    def __init__(self, peers: Sequence[Peer]) -> None:
        self.failures = Failures(())
        self.timeout = 10.0
        self.redirects: dict[Direction, int] = {}
        self._servers = [
            server_at(access_of(f"redis://127.0.0.1:{peer.port}", 10), self.failures) for peer in peers
        ]

    async def of(self, _):
        return self._servers[0]

    def doubt(self):
        pass

    async def follow(self, _, error):
        assert direction_of(error) is Direction.MOVED
        del self._servers[0]
        return self._servers[0]


@pytest.fixture
async def make(nursery):
    """Makes a writer on two servers with these answers."""

    async def made(*answers, confirmed=lambda: True):
        peers = [Peer(list(some)) for some in answers]
        for peer in peers:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            peer.port = listener.socket.getsockname()[1]
            nursery.start_soon(trio.serve_listeners, peer.serve, [listener])
        return FencedWriter(TERM, TwoServers(peers), confirmed), peers

    return made


TRANSACTION = [b"MULTI", b"INCR", b"EXEC", b"WATCH", b"GET"]


@pytest.mark.parametrize(
    "refused",
    [
        b"+OK\r\n" + MOVED + b"-EXECABORT discarded\r\n" + 2 * MOVED,
        b"+OK\r\n+QUEUED\r\n" + 3 * MOVED,
        b"+OK\r\n+QUEUED\r\n*-1\r\n" + 2 * MOVED,
    ],
    ids=["a command", "EXEC", "the fence alone"],
)
async def test_a_transaction_that_was_not_executed_is_sent_to_the_new_owner(make, refused):
    writer, (first, second) = await make([LOOK, refused], [AGAIN, WRITTEN + AGAIN.removeprefix(b"+OK\r\n")])
    assert await writer.look() == (b"1:t1", None)
    await writer.send(WRITE)
    assert await writer.receive() == [1]
    assert writer.watched
    assert first.requests[1:] == [TRANSACTION]
    assert second.requests == [[b"UNWATCH", b"WATCH", b"GET"], TRANSACTION]
    writer.close()


async def test_it_is_not_sent_to_a_new_owner_with_another_fence(make):
    theirs = b"+OK\r\n+OK\r\n$4\r\n9:t9\r\n"
    writer, (_, second) = await make(
        [LOOK, b"+OK\r\n" + MOVED + b"-EXECABORT discarded\r\n" + 2 * MOVED], [theirs]
    )
    await writer.look()
    await writer.send(WRITE)
    with pytest.raises(StoreAway, match="not surely ours"):
        await writer.receive()
    assert len(second.requests) == 1
    writer.close()


async def test_it_is_not_sent_to_a_new_owner_without_the_word_of_the_database(make):
    """A node that stood still may find its old fence on a master that lost the seal of its successor."""
    writer, (_, second) = await make(
        [LOOK, b"+OK\r\n" + MOVED + b"-EXECABORT discarded\r\n" + 2 * MOVED], [AGAIN], confirmed=lambda: False
    )
    await writer.look()
    await writer.send(WRITE)
    with pytest.raises(StoreAway, match="not surely ours"):
        await writer.receive()
    with pytest.raises(StoreAway, match="looked at"):
        await writer.send(WRITE)
    assert len(second.requests) == 1
    writer.close()


async def test_behind_a_transaction_a_move_needs_the_word_of_the_database_too(make):
    """What was executed counts. The next write waits for a look."""
    writer, (_, second) = await make([LOOK, WRITTEN + 2 * MOVED], [AGAIN], confirmed=lambda: False)
    await writer.look()
    await writer.send(WRITE)
    assert await writer.receive() == [1]
    with pytest.raises(StoreAway, match="looked at"):
        await writer.send(WRITE)
    assert len(second.requests) == 1
    writer.close()


async def test_a_slot_that_moves_behind_a_transaction_fails_no_write(make):
    """What was executed counts, and is not sent again. The fence is looked at on the new owner."""
    writer, (_, second) = await make(
        [LOOK, WRITTEN + 2 * MOVED], [AGAIN, WRITTEN + AGAIN.removeprefix(b"+OK\r\n")]
    )
    await writer.look()
    await writer.send(WRITE)
    assert await writer.receive() == [1]
    await writer.send(WRITE)
    assert await writer.receive() == [1]
    assert second.requests == [[b"UNWATCH", b"WATCH", b"GET"], TRANSACTION]
    writer.close()


async def test_an_answer_that_is_none_ends_the_connection(make):
    writer, _ = await make([LOOK, b"+OK\r\n+QUEUED\r\n+OK\r\n" + AGAIN.removeprefix(b"+OK\r\n")], [])
    await writer.look()
    await writer.send(WRITE)
    with pytest.raises(StoreAway, match="unexpected"):
        await writer.receive()
    with pytest.raises(StoreAway, match="looked at"):
        await writer.send(WRITE)
    writer.close()
