"""Messages of venues as the fake ones write them, for measurements of what is done with them."""

from __future__ import annotations

from collections.abc import Mapping

from websockets.client import ClientProtocol
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from marketflow.adapters.exchange.fake_venues.faults import Faults
from marketflow.adapters.exchange.fake_venues.floor import new_floor
from marketflow.adapters.exchange.fake_venues.protocol import Session
from marketflow.app.instruments.clocks import SystemClock


def trades_of(kind: str, count: int) -> tuple[list[bytes], Mapping[str, str]]:
    """That many messages with a trade each, and our symbols by the venue's spelling."""
    floor = new_floor(kind, None, 0, Faults(), SystemClock(), None)
    for symbol in floor.market.symbols:
        floor.market.open(symbol)
    variant = floor.kind.variant(Session(1, {}))
    messages = [
        message for trade in floor.market.trade(count) for _, message in floor.kind.messages([trade], variant)
    ]
    return messages, {symbol: our(symbol) for symbol in floor.market.symbols}


def our(symbol: str) -> str:
    """A venue's symbol as the service spells it."""
    return "".join(filter(str.isalnum, symbol)).upper()


def opened() -> ClientProtocol:
    """The client's side of a WebSocket after its handshake, without compression."""
    client, server = ClientProtocol(parse_uri("ws://localhost/")), ServerProtocol()
    client.send_request(client.connect())
    server.receive_data(b"".join(client.data_to_send()))
    (request,) = server.events_received()
    assert isinstance(request, Request)
    server.send_response(server.accept(request))
    client.receive_data(b"".join(server.data_to_send()))
    client.events_received()
    return client
