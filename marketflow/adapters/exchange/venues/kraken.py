"""Kraken's WebSocket API v2: public spot trades.

https://docs.kraken.com/api/docs/websocket-v2/trade
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic

import msgspec
from msgspec import field

from marketflow.adapters.exchange.venues.json_venue import JsonVenue
from marketflow.adapters.exchange.venues.members import member, reason_of, request_of, text_of
from marketflow.adapters.exchange.venues.reading import Data, Id, Side, TradeMessages, Volume
from marketflow.adapters.exchange.venues.times import all_ms_of
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
    symbol: str
    side: Side | msgspec.UnsetType = msgspec.UNSET
    """The taker's."""
    price: float
    volume: Volume | msgspec.UnsetType = field(name="qty", default=msgspec.UNSET)
    id: Id = field(name="trade_id")
    timestamp: str


class Kraken(JsonVenue):
    """Sends a heartbeat about once a second when there are no trades."""

    kind = "kraken"
    url = "wss://ws.kraken.com/v2"
    rules = Rules(
        attempts=Rate(1, 5.0),  # about 150 in 10 minutes, and after maintenance at most one in 5 s
        requests=Rate(10, 1.0),
        batch=50,
        symbols=1_000,
        silence=5.0,
        least_pause=5.0,
    )
    messages = TradeMessages(_Trade, message=Data, several=True, times=all_ms_of)
    usual = (b'{"channel":"trade","type":"update"', b"")

    def subscribe(self, symbols: Sequence[str], request: int, now: int) -> bytes:  # noqa: ARG002
        """Without a snapshot, since its trades are old."""
        params = {"channel": "trade", "symbol": list(symbols), "snapshot": False}
        return msgspec.json.encode({"method": "subscribe", "params": params, "req_id": request})

    def meaning(self, message: Mapping[str, Any], frame: bytes) -> Meaning:
        """Each symbol of a request has an answer of its own."""
        channel = message.get("channel")
        if channel == "trade":
            return Trades(frame) if message.get("type") == "update" else ALIVE
        if channel == "status" and b'"maintenance"' in frame:
            return Leave("maintenance")
        return _answer(message)


def _answer(message: Mapping[str, object]) -> Meaning:
    error = text_of(message.get("error"), "")
    if message.get("method") != "subscribe":
        return Notice(error) if error else ALIVE
    symbol = text_of(message.get("symbol"), "") or text_of(member(message, "result", "symbol"), "")
    symbols = (symbol,) if symbol else ()
    request = request_of(message.get("req_id"))
    if message.get("success") is True:
        return Subscribed(symbols, request)
    return Rejected(reason_of(error), symbols, request)
