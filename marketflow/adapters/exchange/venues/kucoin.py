"""KuCoin: public spot trades, the topic `/market/match`.

https://www.kucoin.com/docs-new/3470084w0
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic

import msgspec
from msgspec import field

from marketflow.adapters.exchange.venues.json_venue import JsonVenue
from marketflow.adapters.exchange.venues.kucoin_endpoint import endpoint_of
from marketflow.adapters.exchange.venues.members import request_of, text_of
from marketflow.adapters.exchange.venues.reading import Data, Id, Side, TradeMessages, Volume
from marketflow.adapters.exchange.venues.venue import (
    ALIVE,
    WELCOME,
    Endpoint,
    Meaning,
    Notice,
    Rate,
    Rejected,
    Rules,
    Subscribed,
    Trades,
)


class _Trade(msgspec.Struct, Generic[Volume, Side, Id], kw_only=True, gc=False):
    symbol: str
    side: Side | msgspec.UnsetType = msgspec.UNSET
    """The taker's."""
    volume: Volume | msgspec.UnsetType = field(name="size", default=msgspec.UNSET)
    price: float
    timestamp: int = field(name="time")
    id: Id = field(name="tradeId")


def _times(nanoseconds: Sequence[int]) -> Sequence[int]:
    return [time // 1_000_000 for time in nanoseconds]


_TOPIC: Final = "/market/match:"
_NAMED: Final = re.compile(r"/market/match:([A-Za-z0-9,-]+)")


class KuCoin(JsonVenue):
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
    # Ids are hexadecimal texts, of which some have no letter: all stay texts, so that they can be compared.
    messages = TradeMessages(_Trade, message=Data, times=_times, ids=int | str)
    usual = (b'{"', b'"subject":"trade.l3match"')
    token_path = "/api/v1/bullet-public"  # noqa: S105 - a path

    def endpoint(self, answer: bytes, connection: str) -> Endpoint:
        """The first of its servers."""
        return endpoint_of(answer, connection)

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

    def meaning(self, message: Mapping[str, Any], frame: bytes) -> Meaning:
        """The subject distinguishes trades from other messages. The order of the members varies."""
        if message.get("subject") == "trade.l3match":
            return Trades(frame)
        return _answer(message, request_of(message.get("id")))


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
    named = [symbol for symbols in _NAMED.findall(reason) for symbol in symbols.split(",")]
    if request is None and not named:
        return Notice(reason)
    # With several symbols it does not say which of them it refuses.
    return Rejected(reason, tuple(named) if len(named) == 1 else (), request)
