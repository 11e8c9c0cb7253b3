"""Bitfinex's WebSocket API v2: the channels `trades`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from marketflow.adapters.exchange.fake_venues.protocol import (
    Answer,
    Kind,
    Rate,
    Rules,
    accepted,
    decoded,
    encoded,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marketflow.adapters.exchange.fake_venues.protocol import Session
    from marketflow.adapters.exchange.fake_venues.trades import Market, Trade

CHANNELS: Final = 25
"""The most channels of a connection."""
SNAPSHOT: Final = 30
"""Old trades that come after a subscription."""
NUMBERS: Final = 100_000
"""Numbers of channels for each connection."""


class Bitfinex(Kind):
    """Numbers the channels of each connection in its own way, and sends each trade twice: `te`, then `tu`."""

    name = "bitfinex"
    rules = Rules(path="/ws/2", attempts=Rate(20, 60.0), heartbeat=15.0)
    usual = ("tBTCUST", "tDOGE:UST", "tTONUST", "tSOLUST", "tETHUST")

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        """Of symbols; with that of the connection they give the number of a channel."""

    def greeting(self, session: Session, now: int) -> Sequence[bytes]:  # noqa: ARG002
        """The version, and that it is in operation."""
        return [encoded(event="info", version=2, serverId=session.id, platform={"status": 1})]

    def answer(self, message: bytes, session: Session, market: Market, now: int) -> Answer:
        """One symbol a request. A snapshot of old trades follows."""
        request = decoded(message) or {}
        match request.get("event"):
            case "ping":
                pong = encoded(event="pong", ts=now // 1_000_000, cid=request.get("cid"))
                return Answer(messages=[pong], ping=True)
            case "subscribe":
                return self._subscribe(request.get("channel"), request.get("symbol"), session, market)
            case "unsubscribe":
                return self._unsubscribe(request.get("chanId"), session)
            case _:
                return _error("unknown event", 10000)

    def variant(self, session: Session) -> str:
        """Each connection has other numbers."""
        return str(session.number)

    def messages(self, trades: Sequence[Trade], variant: str) -> Sequence[tuple[str, bytes]]:
        """Two messages for each trade. The amount is negative if the taker sold."""
        session = int(variant)
        return [
            (
                trade.symbol,
                f'[{self._channel(trade.symbol, session)},"{kind}",{_item(trade)}]'.encode(),
            )
            for trade in trades
            for kind in ("te", "tu")
        ]

    def heartbeats(self, session: Session, market: Market, now: int) -> Sequence[bytes]:  # noqa: ARG002
        """One for each channel."""
        return [b'[%d,"hb"]' % self._channel(symbol, session.number) for symbol in session.subscribed]

    def notice(self, now: int) -> bytes:  # noqa: ARG002
        """The client is to connect again."""
        return encoded(event="info", code=20051, msg="Stopping. Please try to reconnect")

    def _subscribe(self, channel: object, symbol: object, session: Session, market: Market) -> Answer:
        if channel != "trades" or not isinstance(symbol, str):
            return _error("channel: unknown", 10302)
        named = {"channel": channel, "symbol": symbol, "pair": symbol.removeprefix("t")}
        if not market.lists(symbol):
            return _error("symbol: invalid", 10300, **named)
        if symbol in session.subscribed:
            return _error("subscribe: dup", 10301, **named)
        if len(session.subscribed) >= CHANNELS:
            answer = _error("subscribe: limit", 10305, **named)
            return Answer(messages=answer.messages, violation=f"more than {CHANNELS} channels")
        number = self._channel(symbol, session.number)
        old = ",".join(map(_item, reversed(market.recent(symbol, SNAPSHOT))))
        messages = [encoded(event="subscribed", chanId=number, **named), f"[{number},[{old}]]".encode()]
        return accepted(messages, [symbol], leaves=False)

    def _unsubscribe(self, number: object, session: Session) -> Answer:
        for symbol in session.subscribed:
            if self._channel(symbol, session.number) == number:
                done = encoded(event="unsubscribed", status="OK", chanId=number)
                return accepted([done], [symbol], leaves=True)
        return _error("unsubscribe: invalid", 10400)

    def _channel(self, symbol: str, session: int) -> int:
        return session * NUMBERS + self._numbers.setdefault(symbol, len(self._numbers))


def _item(trade: Trade) -> str:
    sign = "" if trade.side == "buy" else "-"
    return f"[{trade.id},{trade.time // 1_000_000},{sign}{trade.size},{trade.price}]"


def _error(reason: str, code: int, **named: str) -> Answer:
    return Answer(messages=[encoded(event="error", msg=reason, code=code, **named)])
