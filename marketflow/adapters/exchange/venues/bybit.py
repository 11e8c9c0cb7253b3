"""Bybit's WebSocket API v5: public spot trades.

https://bybit-exchange.github.io/docs/v5/websocket/public/trade
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, Literal

import msgspec
from msgspec import field

from marketflow.adapters.exchange.venues.json_venue import JsonVenue
from marketflow.adapters.exchange.venues.members import reason_of, request_of, text_of
from marketflow.adapters.exchange.venues.reading import Data, Id, Side, TradeMessages, Volume
from marketflow.adapters.exchange.venues.venue import (
    ALIVE,
    Meaning,
    Notice,
    Rate,
    Rejected,
    Rules,
    Subscribed,
    Trades,
)


class _Trade(msgspec.Struct, Generic[Volume, Side, Id], kw_only=True, gc=False):
    id: Id = field(name="i")
    timestamp: int = field(name="T")
    price: float = field(name="p")
    volume: Volume | msgspec.UnsetType = field(name="v", default=msgspec.UNSET)
    side: Side | msgspec.UnsetType = field(name="S", default=msgspec.UNSET)
    symbol: str = field(name="s")


_TAKERS: Final[Mapping[Any, str]] = {"Buy": "buy", "Sell": "sell"}
_TOPIC: Final = "publicTrade."
_NAMED: Final = re.compile(r"publicTrade\.([A-Z0-9]+)")


class Bybit(JsonVenue):
    """Ends a connection without pings after 10 minutes, so it gets them."""

    kind = "bybit"
    url = "wss://stream.bybit.com/v5/public/spot"
    rules = Rules(
        attempts=Rate(100, 300.0),  # 500 in 5 minutes
        requests=Rate(10, 1.0),
        batch=10,
        symbols=500,
        rejects_all=True,
        ping_every=20.0,
        silence=50.0,
    )
    letters = "upper"
    messages = TradeMessages(_Trade, message=Data, several=True, sides=Literal["Buy", "Sell"], takers=_TAKERS)
    usual = (b'{"topic":"publicTrade.', b"")

    def subscribe(self, symbols: Sequence[str], request: int, now: int) -> bytes:  # noqa: ARG002
        """A topic for each symbol."""
        topics = [_TOPIC + symbol for symbol in symbols]
        return msgspec.json.encode({"req_id": str(request), "op": "subscribe", "args": topics})

    def ping(self, request: int, now: int) -> bytes:  # noqa: ARG002
        """Answered by a message whose text is `pong`."""
        return msgspec.json.encode({"req_id": str(request), "op": "ping"})

    def meaning(self, message: Mapping[str, Any], frame: bytes) -> Meaning:
        """Messages with trades are all of the type `snapshot`; their trades are new nevertheless."""
        if text_of(message.get("topic"), "").startswith(_TOPIC):
            return Trades(frame)
        return _answer(message, reason_of(message.get("ret_msg")))


def _answer(message: Mapping[str, object], reason: str) -> Meaning:
    if message.get("op") != "subscribe":
        return Notice(reason) if message.get("success") is False else ALIVE
    request = request_of(message.get("req_id"))
    if message.get("success") is True:
        return Subscribed((), request)
    symbols = tuple(_NAMED.findall(reason))
    # It refuses a whole request also if one of the symbols has been subscribed before.
    if symbols and "already subscribed" in reason:
        return Subscribed(symbols, request, others_refused=True)
    return Rejected(reason, symbols, request)
