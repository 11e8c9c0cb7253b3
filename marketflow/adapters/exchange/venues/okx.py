"""OKX's WebSocket API v5: public spot trades.

https://www.okx.com/docs-v5/en/#order-book-trading-market-data-ws-trades-channel
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic

import msgspec
from msgspec import field

from marketflow.adapters.exchange.venues.json_venue import JsonVenue
from marketflow.adapters.exchange.venues.members import member, reason_of, request_of
from marketflow.adapters.exchange.venues.reading import Data, Id, Side, TradeMessages, Volume
from marketflow.adapters.exchange.venues.venue import (
    ALIVE,
    Leave,
    Meaning,
    Notice,
    Rate,
    Rejected,
    Rules,
    Subscribed,
    Trades,
)


class _Trade(msgspec.Struct, Generic[Volume, Side, Id], kw_only=True, gc=False):
    symbol: str = field(name="instId")
    id: Id = field(name="tradeId")
    price: float = field(name="px")
    volume: Volume | msgspec.UnsetType = field(name="sz", default=msgspec.UNSET)
    side: Side | msgspec.UnsetType = msgspec.UNSET
    """The taker's."""
    timestamp: int = field(name="ts")


_UPGRADE: Final = "64008"
"""The code of the notice that comes 30 s before an upgrade."""
_NAMED: Final = re.compile(r"instId:\s*\"?([A-Za-z0-9-]+)")


class Okx(JsonVenue):
    """Ends a connection on which nothing was sent for 30 s, so it gets pings: a text that is not JSON."""

    kind = "okx"
    url = "wss://ws.okx.com:8443/ws/v5/public"
    rules = Rules(
        attempts=Rate(2, 1.0),  # 3 a second
        requests=Rate(400, 3_600.0),  # 480 an hour, with 180 pings
        batch=50,
        symbols=500,
        rejects_all=True,  # it is not documented; if it does not, asking again does no harm
        ping_every=20.0,
        silence=45.0,
    )
    messages = TradeMessages(_Trade, message=Data, several=True)
    usual = (b'{"arg":{"channel":"trades","instId":"', b'"},"data":[{')

    def subscribe(self, symbols: Sequence[str], request: int, now: int) -> bytes:  # noqa: ARG002
        """After it OKX sends the last trade of each symbol again, which may be old."""
        args = [{"channel": "trades", "instId": symbol} for symbol in symbols]
        return msgspec.json.encode({"id": str(request), "op": "subscribe", "args": args})

    def ping(self, request: int, now: int) -> bytes:  # noqa: ARG002
        """A text, answered by `pong`."""
        return b"ping"

    def read(self, frame: bytes) -> Meaning:
        """The answer to a ping is no JSON."""
        return ALIVE if frame.strip() == b"pong" else super().read(frame)

    def meaning(self, message: Mapping[str, Any], frame: bytes) -> Meaning:
        """Each symbol of a request has an answer of its own."""
        if "event" in message:
            return _event(message)
        return Trades(frame) if member(message, "arg", "channel") == "trades" else ALIVE


def _event(message: Mapping[str, object]) -> Meaning:
    request, reason = request_of(message.get("id")), reason_of(message.get("msg"))
    symbol = member(message, "arg", "instId")
    symbols = (symbol,) if isinstance(symbol, str) else ()
    match message.get("event"):
        case "subscribe":
            return Subscribed(symbols, request)
        case "error":
            return Rejected(reason, symbols or tuple(_NAMED.findall(reason)), request)
        case "notice":
            return Leave(reason) if message.get("code") == _UPGRADE else Notice(reason)
        case _:
            return ALIVE
