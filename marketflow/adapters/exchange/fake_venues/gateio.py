"""Gate's WebSocket API v4: the channel `spot.trades`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from marketflow.adapters.exchange.fake_venues.protocol import (
    Answer,
    Kind,
    Rules,
    accepted,
    decoded,
    encoded,
    texts,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marketflow.adapters.exchange.fake_venues.protocol import Session
    from marketflow.adapters.exchange.fake_venues.trades import Market, Trade

_CHANNEL = "spot.trades"


class Gateio(Kind):
    """One unknown pair in a list fails the whole list. Times are texts of fractional ms."""

    name = "gateio"
    rules = Rules(path="/ws/v4/")
    usual = ("BTC_USDT", "DOGE_USDT", "TON_USDT", "SOL_USDT", "ETH_USDT")

    def answer(self, message: bytes, session: Session, market: Market, now: int) -> Answer:
        """Subscriptions, and pings on a channel of their own."""
        request = decoded(message)
        channel = request.get("channel") if request else None
        event = request.get("event") if request else None
        times: dict[str, Any] = {"time": now // 1_000_000_000, "time_ms": now // 1_000_000}
        if request is None or type(request.get("time")) is not int:
            error = {"code": 1, "message": "invalid request body"}
            return Answer(messages=[encoded(**times, channel="", event="", error=error)])
        if channel == "spot.ping":
            return Answer(messages=[encoded(**times, channel="spot.pong", event="")], ping=True)
        common = {**times, "id": request.get("id"), "conn_id": session.id, "channel": channel, "event": event}
        pairs = texts(request.get("payload"))
        if channel != _CHANNEL or event not in ("subscribe", "unsubscribe") or not pairs:
            error = {"code": 2, "message": "invalid argument"}
            return Answer(messages=[encoded(**common, error=error)])
        for pair in pairs:
            if not market.lists(pair):
                error = {"code": 2, "message": f"unknown currency pair {pair}"}
                return Answer(messages=[encoded(**common, payload=pairs, error=error)])
        done = encoded(**common, payload=pairs, result={"status": "success"})
        return accepted([done], pairs, leaves=event == "unsubscribe")

    def messages(self, trades: Sequence[Trade], variant: str) -> Sequence[tuple[str, bytes]]:  # noqa: ARG002
        """One message for each trade."""
        return [(trade.symbol, _trade(trade)) for trade in trades]


def _trade(trade: Trade) -> bytes:
    seconds, ms, rest = trade.time // 1_000_000_000, trade.time // 1_000_000, trade.time % 1_000_000
    return (
        f'{{"time":{seconds},"time_ms":{ms},"channel":"{_CHANNEL}","event":"update","result":{{'
        f'"id":{trade.id},"create_time":{seconds},"create_time_ms":"{ms}.{rest:06d}","side":"{trade.side}",'
        f'"currency_pair":"{trade.symbol}","amount":"{trade.size}","price":"{trade.price}"}}}}'
    ).encode()
