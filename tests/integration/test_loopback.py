"""A connection to itself is refused wherever we connect, and its port is free again at once."""

from __future__ import annotations

import socket

import pytest
import trio

from marketflow.adapters.cache.connecting import connected_to_first
from marketflow.adapters.exchange.dialing import open_tcp
from marketflow.adapters.exchange.websocket.opening import Opener
from marketflow.loopback import check_other_end


@pytest.fixture
async def port(monkeypatch):
    """A client that connects to this port of loopback is given the same port for its own end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    with trio.socket.socket() as any_socket:
        kind = type(any_socket)
    connect = kind.connect

    async def connect_from_there(self, address):
        if address == ("127.0.0.1", number):
            await self.bind(address)
        await connect(self, address)

    monkeypatch.setattr(kind, "connect", connect_from_there)
    return number


def address_of(port):
    [found] = socket.getaddrinfo("127.0.0.1", port, type=socket.SOCK_STREAM)
    return found


WAYS = {
    "an exchange with lines": lambda port: open_tcp("127.0.0.1", port),
    "an exchange with WebSockets": lambda port: Opener().open(f"ws://127.0.0.1:{port}/"),
    "Redis": lambda port: connected_to_first([address_of(port)], None),
}


@pytest.mark.parametrize("connect", WAYS.values(), ids=WAYS)
async def test_a_connection_to_itself_is_refused_and_its_port_is_free(port, connect):
    with pytest.raises(ConnectionError, match="connected to itself"), trio.fail_after(20):
        await connect(port)
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))


def test_other_connections_are_good():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        server.accept()[0] as accepted,
    ):
        check_other_end(client)
        check_other_end(accepted)
