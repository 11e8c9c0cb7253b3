"""Binance: public spot trades, through combined streams.

https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams
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
    Rate,
    Rejected,
    Rules,
    Subscribed,
    Trades,
)


class _Trade(msgspec.Struct, Generic[Volume, Side, Id], kw_only=True, gc=False):
    symbol: str = field(name="s")
    id: Id = field(name="t")
    price: float = field(name="p")
    volume: Volume | msgspec.UnsetType = field(name="q", default=msgspec.UNSET)
    timestamp: int = field(name="T")
    side: Side | msgspec.UnsetType = field(name="m", default=msgspec.UNSET)
    """Whether the maker bought."""


_TAKERS: Final[Mapping[Any, str]] = {True: "sell", False: "buy"}
_NAMED: Final = re.compile(r"([A-Za-z0-9]+)@trade")


class Binance(JsonVenue):
    """Sends WebSocket pings each 20 s. Accepts symbols that it does not have, and sends nothing for them."""

    kind = "binance"
    url = "wss://stream.binance.com:9443/stream"
    rules = Rules(
        attempts=Rate(150, 300.0),  # 300 in 5 minutes, then it bans the address
        requests=Rate(4, 1.0),  # 5 a second
        pongs_are_requests=True,
        batch=100,
        symbols=1_000,  # 1024 streams
        rejects_all=True,
        lifetime=24 * 3_600.0,
        silence=50.0,
        pings_show_life=True,
    )
    letters = "upper"  # in trades; the names of streams are in lower case
    contiguous_ids = True
    messages = TradeMessages(_Trade, message=Data, sides=bool, takers=_TAKERS)
    usual = (b'{"stream":"', b'@trade","data":{"e":"trade",')

    def subscribe(self, symbols: Sequence[str], request: int, now: int) -> bytes:  # noqa: ARG002
        """A stream for each symbol."""
        streams = [f"{symbol.lower()}@trade" for symbol in symbols]
        return msgspec.json.encode({"method": "SUBSCRIBE", "params": streams, "id": request})

    def meaning(self, message: Mapping[str, Any], frame: bytes) -> Meaning:
        """A trade may come without the envelope of a combined stream."""
        event = member(message, "data", "e") or message.get("e")
        if event == "trade":
            return Trades(frame if "data" in message else b'{"data":' + frame + b"}")
        if event == "serverShutdown":
            return Leave("server shutdown")
        request = request_of(message.get("id"))
        reason = member(message, "error", "msg") or message.get("msg")
        if reason is not None or "error" in message:
            words = reason_of(reason)
            named = {stream.upper() for stream in _NAMED.findall(words)}
            return Rejected(words, tuple(named) if len(named) == 1 else (), request)
        return Subscribed((), request) if request is not None and "result" in message else ALIVE
