"""Bybit's WebSocket API v5: public spot trades.

https://bybit-exchange.github.io/docs/v5/websocket/public/trade
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, Literal

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
    members,
    request_of,
    text_of,
)
from marketflow.adapters.exchange.venues.venue import (
    ALIVE,
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
    id: Id = field(name="i")
    timestamp: int = field(name="T")
    price: float = field(name="p")
    volume: Volume | msgspec.UnsetType = field(name="v", default=msgspec.UNSET)
    side: Side | msgspec.UnsetType = field(name="S", default=msgspec.UNSET)
    symbol: str = field(name="s")


class _Message(msgspec.Struct, Generic[Item], gc=False):
    data: list[Item]


_TAKERS: Final[Mapping[Any, str]] = {"Buy": "buy", "Sell": "sell"}


_TRADES = TradeMessages(_Trade, message=_Message, several=True, sides=Literal["Buy", "Sell"], takers=_TAKERS)
_TOPIC: Final = "publicTrade."
_NAMED: Final = re.compile(r"publicTrade\.([A-Z0-9]+)")


class Bybit(Venue):
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

    def spelling(self, symbol: str) -> str:
        """The same letters."""
        return symbol

    def canonical(self, symbol: str) -> str:
        """Upper case."""
        return symbol.upper()

    def subscribe(self, symbols: Sequence[str], request: int, now: int) -> bytes:  # noqa: ARG002
        """A topic for each symbol."""
        topics = [_TOPIC + symbol for symbol in symbols]
        return msgspec.json.encode({"req_id": str(request), "op": "subscribe", "args": topics})

    def ping(self, request: int, now: int) -> bytes:  # noqa: ARG002
        """Answered by a message whose text is `pong`."""
        return msgspec.json.encode({"req_id": str(request), "op": "ping"})

    def only_trades(self, frames: Sequence[bytes]) -> bool:
        """Those that have the usual form."""
        return all_have(frames, b'{"topic":"publicTrade.')

    def read(self, frame: bytes) -> Meaning:
        """Messages with trades are all of the type `snapshot`; their trades are new nevertheless."""
        if self.only_trades((frame,)):
            return Trades(frame)
        message = members(frame)
        if message is None or text_of(message.get("topic"), "").startswith(_TOPIC):
            return Trades(frame)
        return _answer(message, text_of(message.get("ret_msg"), "no reason given"))

    def trades(self, body: bytes) -> Found:
        """A message has up to 1024 trades."""
        return _TRADES.found(body)

    def together(self, bodies: Sequence[bytes]) -> Sequence[Quotes] | None:
        """All messages at once."""
        return _TRADES.together(bodies)


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
