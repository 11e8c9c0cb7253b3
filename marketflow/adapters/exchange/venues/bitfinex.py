"""Bitfinex's WebSocket API v2: public spot trades.

https://docs.bitfinex.com/reference/ws-public-trades
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic

import msgspec

from marketflow.adapters.exchange.checks import Quotes
from marketflow.adapters.exchange.venues.reading import (
    Id,
    Item,
    Side,
    TradeMessages,
    Volume,
    decoded,
    member,
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
    Trade,
    Trades,
    Venue,
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
        side = "buy" if volume > 0 else "sell"
        volume = abs(volume)
    return Trade(symbol, trade.price, trade.time, volume, side, trade.id)


_TRADES = TradeMessages(_Trade, message=_Message, items=_items)
_USUAL: Final = re.compile(rb'\[([0-9]{1,18}),"te",\[')
_LEAVE: Final[Mapping[Any, str]] = {20051: "reconnect requested", 20060: "maintenance"}
"""The codes of information after which another connection is to be made."""
_REPEATED: Final = 10301


class Bitfinex(Venue):
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

    def __init__(self) -> None:
        self._symbols: dict[int, bytes] = {}
        """The beginning of a message by its channel: a bracket, the symbol and a comma."""

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
            return self._trade(int(usual[1]), frame)
        match decoded(frame):
            case [int(channel), "te", *_]:
                return self._trade(channel, frame.lstrip())
            case [int(), str() | list(), *_]:
                return ALIVE  # a snapshot, a heartbeat, another form of a trade
            case dict(message):
                return self._event(message)
            case _:
                return Trades(frame)

    def trades(self, body: bytes) -> Found:
        """One trade, behind its symbol."""
        return _TRADES.found(body)

    def together(self, bodies: Sequence[bytes]) -> Sequence[Quotes] | None:
        """All messages at once."""
        return _TRADES.together(bodies)

    def _trade(self, channel: int, frame: bytes) -> Meaning:
        beginning = self._symbols.get(channel)
        # Without its symbol it counts as malformed.
        return Trades(frame if beginning is None else beginning + frame[1:])

    def _event(self, message: Mapping[str, object]) -> Meaning:
        symbol, code = text_of(message.get("symbol"), ""), message.get("code")
        symbols = (symbol,) if symbol else ()
        match message.get("event"):
            case "subscribed" if message.get("channel") == "trades":
                return self._subscribed(message.get("chanId"), symbol)
            case "error" if code == _REPEATED and symbols:
                return Subscribed(symbols)
            case "error":
                reason = text_of(message.get("msg"), "no reason given")
                return Rejected(reason, symbols) if "channel" in message else Notice(reason)
            case "info" if isinstance(code, int) and code in _LEAVE:
                return Leave(_LEAVE[code])
            case "info" if member(message, "platform", "status") == 0:
                return Notice("maintenance")
            case _:
                return ALIVE

    def _subscribed(self, channel: object, symbol: str) -> Meaning:
        if not isinstance(channel, int) or not symbol or len(self._symbols) >= self.rules.symbols:
            return Notice("a subscription that was not expected")
        self._symbols[channel] = b"[" + msgspec.json.encode(symbol) + b","
        return Subscribed((symbol,))
