"""Bitfinex's WebSocket API v2: public spot trades.

https://docs.bitfinex.com/reference/ws-public-trades
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic

import msgspec

from marketflow.adapters.exchange.venues.bitfinex_channels import Channels
from marketflow.adapters.exchange.venues.json_venue import JsonVenue
from marketflow.adapters.exchange.venues.members import decoded, member, reason_of, text_of
from marketflow.adapters.exchange.venues.reading import Id, Item, Side, TradeMessages, Volume
from marketflow.adapters.exchange.venues.venue import (
    ALIVE,
    Leave,
    Meaning,
    Notice,
    Rate,
    Rejected,
    Rules,
    Subscribed,
    Trade,
    Trades,
)


class _Trade(msgspec.Struct, Generic[Volume, Side, Id], array_like=True, gc=False):
    id: Id
    time: int
    amount: Volume
    """Negative if the taker sold."""
    price: float


class _Message(msgspec.Struct, Generic[Item], array_like=True, gc=False):
    """A frame with the symbol of its channel before it."""

    symbol: str
    channel: int
    kind: str
    data: Item


def _items(messages: Sequence[_Message[_Trade[float, str, int]]]) -> Sequence[Trade]:
    return [_trade(message.symbol, message.data) for message in messages]


def _trade(symbol: str, trade: _Trade[float, str, int]) -> Trade:
    volume, side = trade.amount, None
    if type(volume) in {float, int}:
        side = "buy" if volume > 0 else "sell" if volume < 0 else None
        volume = abs(volume)
    return Trade(symbol, trade.price, trade.time, volume, side, trade.id)


_USUAL: Final = re.compile(rb'\[([0-9]{1,18}),"te",\[')
_LEAVE: Final[Mapping[Any, str]] = {20051: "reconnect requested", 20060: "maintenance"}
"""The codes of information after which another connection is to be made."""
_REPEATED: Final = 10301


class Bitfinex(JsonVenue):
    """Numbers its channels on each connection, and sends no symbol with a trade."""

    kind = "bitfinex"
    url = "wss://api-pub.bitfinex.com/ws/2"
    rules = Rules(
        attempts=Rate(15, 60.0),  # 20 a minute
        requests=Rate(5, 1.0),
        batch=1,
        symbols=25,
        silence=40.0,
    )
    messages = TradeMessages(_Trade, message=_Message, items=_items)

    def __init__(self) -> None:
        self._channels = Channels(self.rules.symbols)

    def for_connection(self) -> Bitfinex:
        """One that knows no channel yet."""
        return Bitfinex()

    def subscribe(self, symbols: Sequence[str], request: int, now: int) -> bytes:  # noqa: ARG002
        """One symbol. After it Bitfinex sends a snapshot of old trades."""
        (symbol,) = symbols
        return msgspec.json.encode({"event": "subscribe", "channel": "trades", "symbol": symbol})

    def read(self, frame: bytes) -> Meaning:
        """A trade comes twice, as `te` and as `tu` with the same id: the first counts."""
        usual = _USUAL.match(frame)
        if usual is not None:
            return Trades(self._channels.named(int(usual[1]), frame))
        match decoded(frame):
            case [int(channel), "te", *_]:
                # Without its symbol it counts as malformed.
                return Trades(self._channels.named(channel, frame.lstrip()))
            case [int(), str() | list(), *_]:
                return ALIVE  # a snapshot, a heartbeat, another form of a trade
            case _:
                return super().read(frame)

    def meaning(self, message: Mapping[str, Any], frame: bytes) -> Meaning:  # noqa: ARG002
        """What is no array is an event."""
        symbol, code = text_of(message.get("symbol"), ""), message.get("code")
        symbols = (symbol,) if symbol else ()
        match message.get("event"):
            case "subscribed" if message.get("channel") == "trades":
                is_open = self._channels.open(message.get("chanId"), symbol)
                return Subscribed(symbols) if is_open else Notice("a subscription that was not expected")
            case "error" if code == _REPEATED and symbols:
                return Subscribed(symbols)
            case "error":
                reason = reason_of(message.get("msg"))
                return Rejected(reason, symbols) if "channel" in message else Notice(reason)
            case "info" if isinstance(code, int) and code in _LEAVE:
                return Leave(_LEAVE[code])
            case "info" if member(message, "platform", "status") == 0:
                return Notice("maintenance")
            case _:
                return ALIVE
