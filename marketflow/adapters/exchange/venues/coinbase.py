"""Coinbase Exchange: public trades, the channel `matches`.

https://docs.cdp.coinbase.com/exchange/websocket-feed/channels
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic

import msgspec
from msgspec import field

from marketflow.adapters.exchange.venues.json_venue import JsonVenue
from marketflow.adapters.exchange.venues.members import text_of
from marketflow.adapters.exchange.venues.reading import Id, Side, TradeMessages, Volume
from marketflow.adapters.exchange.venues.times import all_ms_of
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
    id: Id = field(name="trade_id")
    side: Side | msgspec.UnsetType = msgspec.UNSET
    """The maker's."""
    volume: Volume | msgspec.UnsetType = field(name="size", default=msgspec.UNSET)
    price: float
    symbol: str = field(name="product_id")
    timestamp: str = field(name="time")


_TAKERS: Final[Mapping[Any, str]] = {"sell": "buy", "buy": "sell"}
_PRODUCT: Final = re.compile(r"\b[A-Z0-9]+-[A-Z0-9]+\b")


class Coinbase(JsonVenue):
    """Sends a heartbeat each second for each symbol, if it is asked to."""

    kind = "coinbase"
    url = "wss://ws-feed.exchange.coinbase.com"
    rules = Rules(
        attempts=Rate(4, 1.0),  # 8 requests a second from an address, with those below
        requests=Rate(4, 1.0),
        requests_by_address=True,
        batch=50,
        symbols=500,
        rejects_all=True,
        silence=10.0,
    )
    contiguous_ids = True
    messages = TradeMessages(_Trade, times=all_ms_of, takers=_TAKERS)
    usual = (b'{"type":"match",', b"")

    def subscribe(self, symbols: Sequence[str], request: int, now: int) -> bytes:  # noqa: ARG002
        """Trades and heartbeats. It must come within 5 s of connecting."""
        channels = [{"name": name, "product_ids": list(symbols)} for name in ("matches", "heartbeat")]
        return msgspec.json.encode({"type": "subscribe", "channels": channels})

    def meaning(self, message: Mapping[str, Any], frame: bytes) -> Meaning:
        """Its answer to a request has all symbols of the connection, and no number."""
        match message.get("type"):
            case "match":
                return Trades(frame)
            case "subscriptions":
                symbols = _subscribed(message.get("channels"))
                return Subscribed(symbols) if symbols else ALIVE
            case "error":
                return _error(text_of(message.get("message"), ""), text_of(message.get("reason"), ""))
            case _:
                # Also `last_match`: the trade before the subscription, which may be old.
                return ALIVE


def _subscribed(channels: object) -> tuple[str, ...]:
    """The symbols whose trades are sent."""
    found: list[str] = []
    for channel in channels if isinstance(channels, list) else ():
        match channel:
            case {"name": "matches", "product_ids": [*symbols]}:
                found += [symbol for symbol in symbols if isinstance(symbol, str)]
    return tuple(found)


def _error(message: str, reason: str) -> Meaning:
    words = ": ".join(filter(None, (message, reason))) or "error"
    if "subscribe" not in message:
        return Notice(words)
    return Rejected(words, tuple(dict.fromkeys(_PRODUCT.findall(reason))))
