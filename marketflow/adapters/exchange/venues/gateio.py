"""Gate's WebSocket API v4: public spot trades.

https://www.gate.com/docs/developers/apiv4/ws/en/#public-trades-channel
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic

import msgspec
from msgspec import field

from marketflow.adapters.exchange.venues.json_venue import JsonVenue
from marketflow.adapters.exchange.venues.members import member, reason_of, request_of, text_of
from marketflow.adapters.exchange.venues.reading import Id, Item, Side, TradeMessages, Volume
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
    id: Id
    timestamp: str | float = field(name="create_time_ms")
    side: Side | msgspec.UnsetType = msgspec.UNSET
    """The taker's."""
    symbol: str = field(name="currency_pair")
    volume: Volume | msgspec.UnsetType = field(name="amount", default=msgspec.UNSET)
    price: float


class _Message(msgspec.Struct, Generic[Item], gc=False):
    result: Item


def _times(times: Sequence[str | float]) -> Sequence[int]:
    # Not by way of a float: with a fraction of `.999999` the nearest one is the next ms.
    return [int(time.partition(".")[0] if isinstance(time, str) else time) for time in times]


_CHANNEL: Final = "spot.trades"
_NAMED: Final = re.compile(r"currency pair:? ([A-Za-z0-9_]+)")


class Gate(JsonVenue):
    """Refuses all symbols of a request if it refuses one, so each symbol has a request of its own."""

    kind = "gateio"
    url = "wss://api.gateio.ws/ws/v4/"
    rules = Rules(
        attempts=Rate(60, 300.0),
        requests=Rate(20, 1.0),
        batch=1,
        symbols=200,
        rejects_all=True,
        ping_every=15.0,
        silence=40.0,
    )
    messages = TradeMessages(_Trade, message=_Message, field="result", times=_times)
    usual = (b'{"time":', b'"channel":"spot.trades","event":"update","result":{')

    def subscribe(self, symbols: Sequence[str], request: int, now: int) -> bytes:
        """Gate wants to know the time, in seconds."""
        return msgspec.json.encode(
            {
                "time": now // 1_000,
                "id": request,
                "channel": _CHANNEL,
                "event": "subscribe",
                "payload": list(symbols),
            }
        )

    def ping(self, request: int, now: int) -> bytes:  # noqa: ARG002
        """Answered by `spot.pong`."""
        return msgspec.json.encode({"time": now // 1_000, "channel": "spot.ping"})

    def meaning(self, message: Mapping[str, Any], frame: bytes) -> Meaning:
        """Answers to requests and trades have the same channel, and different events."""
        if message.get("channel") == _CHANNEL:
            if message.get("event") == "update":
                return Trades(frame)
            if message.get("event") == "subscribe":
                return _answer(message)
        error = message.get("error")
        return ALIVE if error is None else Notice(text_of(member(error, "message"), "error"))


def _answer(message: Mapping[str, object]) -> Meaning:
    request = request_of(message.get("id"))
    if message.get("error") is None and member(message, "result", "status") == "success":
        return Subscribed((), request)
    reason = reason_of(member(message, "error", "message"))
    return Rejected(reason, tuple(_NAMED.findall(reason)), request)
