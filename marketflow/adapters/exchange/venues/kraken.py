"""Kraken's WebSocket API v2: public spot trades.

https://docs.kraken.com/api/docs/websocket-v2/trade
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, Generic, TypeVar

import msgspec

from marketflow.adapters.exchange.venues.reading import TradeMessages, decoded, ms_of, volume_of
from marketflow.adapters.exchange.venues.venue import (
    ALIVE,
    Found,
    Leave,
    Meaning,
    Rate,
    Rejected,
    Rules,
    Subscribed,
    Trade,
    Trades,
    Venue,
)

Volume = TypeVar("Volume")
Item = TypeVar("Item")


class _Trade(msgspec.Struct, Generic[Volume], gc=False):
    symbol: str
    price: float
    trade_id: int
    timestamp: datetime
    qty: Volume | None = None
    side: Any = None


class _Message(msgspec.Struct, Generic[Item], gc=False):
    data: list[Item]


class _Result(msgspec.Struct, gc=False):
    symbol: str | None = None


class _Envelope(msgspec.Struct, gc=False):
    """What tells messages apart."""

    channel: str | None = None
    type: str | None = None
    method: str | None = None
    req_id: int | None = None
    success: bool | None = None
    error: str | None = None
    symbol: str | None = None
    result: _Result | None = None


_ENVELOPE = msgspec.json.Decoder(_Envelope)


def _trade(_: object, item: _Trade[Any]) -> Trade:
    return Trade(
        item.symbol,
        item.price,
        ms_of(item.timestamp),
        volume_of(item.qty),
        item.side,  # the taker's
        item.trade_id,
    )


_TRADES = TradeMessages(
    _Message, good=_Trade[float], loose=_Trade[Any], items=attrgetter("data"), trade=_trade
)


class Kraken(Venue):
    """Sends a heartbeat about once a second when there are no trades."""

    kind = "kraken"
    url = "wss://ws.kraken.com/v2"
    rules = Rules(
        attempts=Rate(60, 600.0),  # about 150 in 10 minutes
        requests=Rate(10, 1.0),
        batch=50,
        symbols=1_000,
        silence=5.0,
        least_pause=5.0,  # after maintenance at most one attempt in 5 s
    )

    def subscribe(self, symbols: Sequence[str], request: int, now: int) -> bytes:  # noqa: ARG002
        """Without a snapshot, since its trades are old."""
        params = {"channel": "trade", "symbol": list(symbols), "snapshot": False}
        return msgspec.json.encode({"method": "subscribe", "params": params, "req_id": request})

    def read(self, frame: bytes) -> Meaning:
        """Each symbol of a request has an answer of its own."""
        envelope = decoded(_ENVELOPE, frame)
        if envelope is None:
            return Trades(frame)
        if envelope.channel == "trade":
            return Trades(frame) if envelope.type == "update" else ALIVE
        if envelope.method == "subscribe":
            named = envelope.symbol or (envelope.result.symbol if envelope.result else None)
            symbols = () if named is None else (named,)
            if envelope.success:
                return Subscribed(symbols, envelope.req_id)
            return Rejected(envelope.error or "refused", symbols, envelope.req_id)
        if envelope.channel == "status" and b'"maintenance"' in frame:
            return Leave("maintenance")
        return ALIVE

    def trades(self, body: bytes) -> Found:
        """Numbers are bare, and a message may have many trades."""
        return _TRADES.found(body)
