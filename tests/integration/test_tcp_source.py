from __future__ import annotations

import socket
import struct
from functools import partial

import pytest
import trio

from marketflow.adapters.exchange.tcp import TcpSource, receive_size

LIMIT_SECONDS = 30


@pytest.fixture
async def limit():
    """No test here may hang."""
    with trio.fail_after(LIMIT_SECONDS):
        yield


def source_of(host, port, **options) -> TcpSource:
    return TcpSource("exchange1", host, port, decode=None, reader=None, **options)


def reset(stream: trio.SocketStream) -> None:
    """Close at once with a reset instead of a normal close."""
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


async def silent(stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def served_by(nursery: trio.Nursery, handler) -> int:
    listeners = await nursery.start(partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
    return listeners[0].socket.getsockname()[1]


async def test_receives_what_is_sent_until_the_end(limit, nursery):
    async def handler(stream):
        await stream.send_all(b"a\nhalf")

    port = await served_by(nursery, handler)
    source = source_of("127.0.0.1", port)
    assert source.exchange == "exchange1"
    async with source.connect() as connection:
        received = b""
        while data := await connection.receive():
            assert type(data) is bytes
            received += data
    assert received == b"a\nhalf"


@pytest.mark.parametrize(("symbols", "size"), [(1, 65_536), (5, 65_536), (50, 130_000), (1_000, 262_144)])
async def test_receives_large_pieces_the_more_symbols_the_larger(limit, nursery, symbols, size):
    sent = b"x" * 3_000_000

    port = await served_by(nursery, lambda stream: stream.send_all(sent))
    sizes = []
    source = source_of("127.0.0.1", port, receive_size=receive_size(symbols))
    async with source.connect() as connection:
        while data := await connection.receive():
            sizes.append(len(data))
    assert sum(sizes) == len(sent)
    assert max(sizes) <= size
    assert symbols < 1_000 or max(sizes) > 65_536


async def test_a_reset_is_an_os_error(limit, nursery):
    connected = trio.Event()

    async def handler(stream):
        await connected.wait()
        reset(stream)

    port = await served_by(nursery, handler)
    async with source_of("127.0.0.1", port).connect() as connection:
        connected.set()
        with pytest.raises(ConnectionError, match="reset"):
            await connection.receive()


async def test_receiving_after_the_close_is_an_os_error(limit, nursery):
    port = await served_by(nursery, silent)
    async with source_of("127.0.0.1", port).connect() as connection:
        pass
    with pytest.raises(OSError, match="closed"):
        await connection.receive()


async def test_no_one_there_is_an_os_error(limit):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="Connection refused"):
            async with source_of("127.0.0.1", unused.getsockname()[1]).connect():
                pytest.fail("connected to no one")


@pytest.mark.parametrize("host", ["a..b", "x" * 70 + ".invalid"])
async def test_a_host_that_is_none_is_an_os_error(limit, host):
    with pytest.raises(OSError, match="is no host name"):
        async with source_of(host, 40101).connect():
            pytest.fail("connected to no one")


async def test_connecting_has_a_time_limit(limit):
    """A listener whose backlog is full does not answer."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.settimeout(0)
            filler.connect_ex(listener.getsockname())
        with pytest.raises(TimeoutError, match=r"within 0\.2 s"):
            async with source_of(*listener.getsockname(), connect_timeout=0.2).connect():
                pytest.fail("connected past the backlog")
        for filler in fillers:
            filler.close()


async def test_a_connection_to_itself_is_refused_and_closed(limit, monkeypatch):
    """On loopback a socket can connect to its own port if nobody listens; the exchange gets it back."""
    itself = trio.socket.socket()
    await itself.bind(("127.0.0.1", 0))
    port = itself.getsockname()[1]
    await itself.connect(("127.0.0.1", port))

    async def open_tcp_stream(host, port):
        return trio.SocketStream(itself)

    monkeypatch.setattr(trio, "open_tcp_stream", open_tcp_stream)
    with pytest.raises(ConnectionError, match="itself"):
        async with source_of("127.0.0.1", port).connect():
            pytest.fail("connected to itself")
    with socket.socket() as exchange:
        exchange.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        exchange.bind(("127.0.0.1", port))


async def test_a_connection_that_is_reset_at_once_is_closed(limit, monkeypatch):
    """An exchange that accepts and resets can be faster than the look at who is at the other end."""
    opened = []

    async def open_tcp_stream(host, port):
        stream = trio.SocketStream(trio.socket.socket())
        await stream.socket.connect((host, port))
        accepted, _ = exchange.accept()
        reset(trio.SocketStream(trio.socket.from_stdlib_socket(accepted)))
        await trio.lowlevel.wait_readable(stream.socket)
        opened.append(stream)
        return stream

    monkeypatch.setattr(trio, "open_tcp_stream", open_tcp_stream)
    with socket.socket() as exchange:
        exchange.bind(("127.0.0.1", 0))
        exchange.listen()
        with pytest.raises(ConnectionError, match="reset the connection"):
            async with source_of(*exchange.getsockname()).connect():
                pytest.fail("connected")
    assert [stream.socket.fileno() for stream in opened] == [-1]


async def test_leaving_closes_the_connection(limit, nursery):
    closed = trio.Event()

    async def handler(stream):
        assert await stream.receive_some(1) == b""
        closed.set()

    port = await served_by(nursery, handler)
    async with source_of("127.0.0.1", port).connect():
        pass
    await closed.wait()


async def test_a_cancelled_receive_closes_quickly_and_loses_nothing_read(limit, nursery):
    """The next receive returns the bytes that arrive after a cancelled one."""
    go_on = trio.Event()
    closed = trio.Event()

    async def handler(stream):
        await go_on.wait()
        await stream.send_all(b"a\n")
        assert await stream.receive_some(1) == b""
        closed.set()

    port = await served_by(nursery, handler)
    with trio.CancelScope() as scope:
        async with source_of("127.0.0.1", port).connect() as connection:
            with trio.move_on_after(0.01) as wait:
                await connection.receive()
            assert wait.cancelled_caught
            go_on.set()
            assert await connection.receive() == b"a\n"
            scope.cancel()
            await connection.receive()
    assert scope.cancelled_caught
    await closed.wait()
