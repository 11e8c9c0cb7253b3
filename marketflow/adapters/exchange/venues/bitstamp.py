"""Bitstamp's WebSocket API v2: public spot trades.

https://www.bitstamp.net/websocket/v2/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, Literal

import msgspec
from msgspec import field

from marketflow.adapters.exchange.venues.json_venue import JsonVenue
from marketflow.adapters.exchange.venues.members import member, reason_of, text_of
from marketflow.adapters.exchange.venues.reading import Id, Item, Side, TradeMessages, Volume
from marketflow.adapters.exchange.venues.venue import (
    ALIVE,
    Leave,
    Meaning,
    Rate,
    Rejected,
    Rules,
    Subscribed,
    Trades,
)


class _Trade(msgspec.Struct, Generic[Volume, Side, Id], kw_only=True, gc=False):
    id: Id
    timestamp: int = field(name="microtimestamp")
    volume: Volume | msgspec.UnsetType = field(name="amount_str", default=msgspec.UNSET)
    price: float = field(name="price_str")
    side: Side | msgspec.UnsetType = field(name="type", default=msgspec.UNSET)
    symbol: str = field(name="", default="")
    """From the name of the channel."""


class _Message(msgspec.Struct, Generic[Item], gc=False):
    channel: str
    data: Item


_TAKERS: Final[Mapping[Any, str]] = {0: "buy", 1: "sell"}
_CHANNEL: Final = "live_trades_"


def _items(messages: Sequence[_Message[_Trade[float, int, int]]]) -> Sequence[_Trade[float, int, int]]:
    for message in messages:
        message.data.symbol = message.channel.removeprefix(_CHANNEL)
    return [message.data for message in messages]


def _times(microseconds: Sequence[int]) -> Sequence[int]:
    return [time // 1_000 for time in microseconds]


class Bitstamp(JsonVenue):
    """Has a channel and a request for each symbol. It may accept symbols that it does not have."""

    kind = "bitstamp"
    url = "wss://ws.bitstamp.net"
    rules = Rules(
        attempts=Rate(20, 60.0),
        requests=Rate(10, 1.0),
        batch=1,
        symbols=100,
        lifetime=90 * 24 * 3_600.0,
        ping_every=30.0,
        silence=70.0,
    )
    letters = "lower"
    messages = TradeMessages(
        _Trade, message=_Message, items=_items, times=_times, sides=Literal[0, 1], takers=_TAKERS
    )
    usual = (b"{", b'"channel":"live_trades_')

    def subscribe(self, symbols: Sequence[str], request: int, now: int) -> bytes:  # noqa: ARG002
        """One symbol."""
        (symbol,) = symbols
        return msgspec.json.encode({"event": "bts:subscribe", "data": {"channel": _CHANNEL + symbol}})

    def ping(self, request: int, now: int) -> bytes:  # noqa: ARG002
        """A heartbeat, answered by one."""
        return b'{"event":"bts:heartbeat"}'

    def only_trades(self, frames: Sequence[bytes]) -> bool:
        """Answers have a channel, too. Their end shows what they are."""
        ends = [frame for frame in frames if frame.endswith(b'","event":"trade"}')]
        return len(ends) == len(frames) and super().only_trades(frames)

    def meaning(self, message: Mapping[str, Any], frame: bytes) -> Meaning:
        """The channel's name has the symbol. Answers have no number."""
        channel = text_of(message.get("channel"), "")
        if message.get("event") == "trade":
            return Trades(frame) if channel.startswith(_CHANNEL) else ALIVE
        return _event(message, (channel.removeprefix(_CHANNEL),) if channel.startswith(_CHANNEL) else ())


def _event(message: Mapping[str, object], symbols: tuple[str, ...]) -> Meaning:
    match message.get("event"):
        case "bts:subscription_succeeded" if symbols:
            return Subscribed(symbols)
        case "bts:error":
            return Rejected(reason_of(member(message, "data", "message")), symbols)
        case "bts:request_reconnect":
            return Leave("reconnect requested")
        case _:
            return ALIVE
