"""KuCoin: public spot trades, the topic `/market/match`.

https://www.kucoin.com/docs-new/3470084w0
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, Generic
from urllib.parse import urlencode

import msgspec
from msgspec import field

from marketflow.adapters.exchange.checks import Quotes
from marketflow.adapters.exchange.venues.reading import (
    Id,
    Item,
    Side,
    TradeMessages,
    Volume,
    all_have,
    member,
    members,
    request_of,
    text_of,
)
from marketflow.adapters.exchange.venues.venue import (
    ALIVE,
    WELCOME,
    Endpoint,
    Found,
    Meaning,
    Notice,
    Rate,
    Rejected,
    Rules,
    Subscribed,
    Trades,
    Venue,
)


class _Trade(msgspec.Struct, Generic[Volume, Side, Id], kw_only=True, gc=False):
    symbol: str
    side: Side | msgspec.UnsetType = msgspec.UNSET
    """The taker's."""
    volume: Volume | msgspec.UnsetType = field(name="size", default=msgspec.UNSET)
    price: float
    timestamp: int = field(name="time")
    id: Id = field(name="tradeId")


class _Message(msgspec.Struct, Generic[Item], gc=False):
    data: Item


def _times(nanoseconds: Sequence[int]) -> Sequence[int]:
    return [time // 1_000_000 for time in nanoseconds]


# Ids are hexadecimal texts, of which some have no letter: all stay texts, so that they can be compared.
_TRADES = TradeMessages(_Trade, message=_Message, times=_times, ids=int | str)
_TOPIC: Final = "/market/match:"
_NAMED: Final = re.compile(r"/market/match:([A-Za-z0-9,-]+)")
_LEAST_PING, _MOST_PING = 1.0, 60.0
"""What we accept as an interval of pings, in seconds."""


class KuCoin(Venue):
    """Gives a token and an endpoint for each connection, and takes requests after its welcome."""

    kind = "kucoin"
    url = "https://api.kucoin.com"
    rules = Rules(
        attempts=Rate(20, 60.0),  # 30 a minute
        requests=Rate(50, 10.0),  # 100 in 10 s
        batch=100,
        symbols=300,
        waits_for_welcome=True,
        rejects_all=True,
        lifetime=24 * 3_600.0,
        ping_every=18.0,
        silence=46.0,
    )
    token_path = "/api/v1/bullet-public"  # noqa: S105 - a path

    def endpoint(self, answer: bytes, connection: str) -> Endpoint:
        """The first of its servers; the answer also says how often it wants pings."""
        message = members(answer)
        token, servers = member(message, "data", "token"), member(message, "data", "instanceServers")
        server = servers[0] if isinstance(servers, list) and servers else None
        url = text_of(member(server, "endpoint"), "")
        if not isinstance(token, str) or not url.startswith(("wss://", "ws://")):
            raise ValueError(f"no endpoint: {text_of(member(message, 'msg'), 'not as documented')}")
        url += ("&" if "?" in url else "?") + urlencode({"token": token, "connectId": connection})
        interval, timeout = member(server, "pingInterval"), member(server, "pingTimeout")
        if not _is_time(interval) or not _is_time(timeout):
            return Endpoint(url)
        ping_every = min(max(interval / 1_000, _LEAST_PING), _MOST_PING)
        return Endpoint(url, ping_every, 2 * ping_every + min(timeout / 1_000, _MOST_PING))

    def subscribe(self, symbols: Sequence[str], request: int, now: int) -> bytes:  # noqa: ARG002
        """One topic for all symbols."""
        topic = _TOPIC + ",".join(symbols)
        return msgspec.json.encode(
            {
                "id": str(request),
                "type": "subscribe",
                "topic": topic,
                "privateChannel": False,
                "response": True,
            }
        )

    def ping(self, request: int, now: int) -> bytes:  # noqa: ARG002
        """Answered by a message of type `pong`."""
        return msgspec.json.encode({"id": str(request), "type": "ping"})

    def only_trades(self, frames: Sequence[bytes]) -> bool:
        """Those that have the usual form."""
        return all_have(frames, b'{"', b'"subject":"trade.l3match"')

    def read(self, frame: bytes) -> Meaning:
        """The subject distinguishes trades from other messages. The order of the members varies."""
        if self.only_trades((frame,)):
            return Trades(frame)
        message = members(frame)
        if message is None:
            return Trades(frame)
        if message.get("subject") == "trade.l3match":
            return Trades(frame)
        return _answer(message, request_of(message.get("id")))

    def trades(self, body: bytes) -> Found:
        """One trade, with its time in nanoseconds."""
        return _TRADES.found(body)

    def together(self, bodies: Sequence[bytes]) -> Sequence[Quotes] | None:
        """All messages at once."""
        return _TRADES.together(bodies)


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _answer(message: Mapping[str, object], request: int | None) -> Meaning:
    match message.get("type"):
        case "welcome":
            return WELCOME
        case "ack":
            return Subscribed((), request)
        case "error":
            return _error(text_of(message.get("data"), "error"), request)
        case _:
            return ALIVE


def _error(reason: str, request: int | None) -> Meaning:
    if request is None:
        return Notice(reason)
    # With several symbols it does not say which of them it refuses.
    named = [symbol for symbols in _NAMED.findall(reason) for symbol in symbols.split(",")]
    return Rejected(reason, tuple(named) if len(named) == 1 else (), request)
