"""OKX's WebSocket API v5: public spot trades.

https://www.okx.com/docs-v5/en/#order-book-trading-market-data-ws-trades-channel
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, Generic

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
    Found,
    Leave,
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
    symbol: str = field(name="instId")
    id: Id = field(name="tradeId")
    price: float = field(name="px")
    volume: Volume | msgspec.UnsetType = field(name="sz", default=msgspec.UNSET)
    side: Side | msgspec.UnsetType = msgspec.UNSET
    """The taker's."""
    timestamp: int = field(name="ts")


class _Message(msgspec.Struct, Generic[Item], gc=False):
    data: list[Item]


_TRADES = TradeMessages(_Trade, message=_Message, several=True)

_UPGRADE: Final = "64008"
"""The code of the notice that comes 30 s before an upgrade."""
_NAMED: Final = re.compile(r"instId:\s*\"?([A-Za-z0-9-]+)")


class Okx(Venue):
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

    def subscribe(self, symbols: Sequence[str], request: int, now: int) -> bytes:  # noqa: ARG002
        """After it OKX sends the last trade of each symbol again, which may be old."""
        args = [{"channel": "trades", "instId": symbol} for symbol in symbols]
        return msgspec.json.encode({"id": str(request), "op": "subscribe", "args": args})

    def ping(self, request: int, now: int) -> bytes:  # noqa: ARG002
        """A text, answered by `pong`."""
        return b"ping"

    def only_trades(self, frames: Sequence[bytes]) -> bool:
        """Those that have the usual form."""
        return all_have(frames, b'{"arg":{"channel":"trades","instId":"', b'"},"data":[{')

    def read(self, frame: bytes) -> Meaning:
        """Each symbol of a request has an answer of its own."""
        if self.only_trades((frame,)):
            return Trades(frame)
        if frame.strip() == b"pong":
            return ALIVE
        message = members(frame)
        if message is None:
            return Trades(frame)
        if "event" in message:
            return _event(message)
        return Trades(frame) if member(message, "arg", "channel") == "trades" else ALIVE

    def trades(self, body: bytes) -> Found:
        """A trade may stand for several fills at one price."""
        return _TRADES.found(body)

    def together(self, bodies: Sequence[bytes]) -> Sequence[Quotes] | None:
        """All messages at once."""
        return _TRADES.together(bodies)


def _event(message: Mapping[str, object]) -> Meaning:
    request, reason = request_of(message.get("id")), text_of(message.get("msg"), "no reason given")
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
