"""Bitstamp's WebSocket API v2: the channels `live_trades_...`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marketflow.adapters.exchange.fake_venues.protocol import Answer, Kind, Rules, accepted, decoded, encoded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marketflow.adapters.exchange.fake_venues.protocol import Session
    from marketflow.adapters.exchange.fake_venues.trades import Market, Trade

DAYS = 86_400.0
_CHANNEL = "live_trades_"


class Bitstamp(Kind):
    """One request for each pair. A subscription to a pair that does not exist succeeds."""

    name = "bitstamp"
    rules = Rules(path="/", lifetime=90 * DAYS)
    usual = ("btcusdt", "dogeusdt", "tonusdt", "solusdt", "ethusdt")

    def symbol(self, given: str) -> str:
        """Lower case."""
        return given.lower()

    def answer(self, message: bytes, session: Session, market: Market, now: int) -> Answer:  # noqa: ARG002
        """Subscriptions and heartbeats."""
        request = decoded(message)
        event = request.get("event") if request else None
        if event == "bts:heartbeat":
            return Answer(
                messages=[encoded(event=event, channel="", data={"status": "success"})],
                ping=True,
            )
        data = request.get("data") if request else None
        channel = data.get("channel") if isinstance(data, dict) else None
        if event not in ("bts:subscribe", "bts:unsubscribe") or not isinstance(channel, str):
            return _error("Bad subscription string.")
        if not channel.startswith(_CHANNEL):
            return _error(f"Incorrect channel: {channel}")
        symbol = channel.removeprefix(_CHANNEL)
        known = [symbol] if market.lists(symbol) else []
        leaves = event == "bts:unsubscribe"
        what = "bts:unsubscription_succeeded" if leaves else "bts:subscription_succeeded"
        return accepted([encoded(event=what, channel=channel, data={})], known, leaves=leaves)

    def messages(self, trades: Sequence[Trade], variant: str) -> Sequence[tuple[str, bytes]]:  # noqa: ARG002
        """One message for each trade. Only the channel has the symbol."""
        return [
            (
                trade.symbol,
                (
                    f'{{"data":{{"id":{trade.id},"timestamp":"{trade.time // 1_000_000_000}",'
                    f'"amount":{trade.size},"amount_str":"{trade.size}","price":{trade.price},'
                    f'"price_str":"{trade.price}","type":{0 if trade.side == "buy" else 1},'
                    f'"microtimestamp":"{trade.time // 1_000}","buy_order_id":{trade.id * 2},'
                    f'"sell_order_id":{trade.id * 2 + 1}}},"channel":"{_CHANNEL}{trade.symbol}",'
                    f'"event":"trade"}}'
                ).encode(),
            )
            for trade in trades
        ]

    def notice(self, now: int) -> bytes:  # noqa: ARG002
        """The client has some seconds to connect again."""
        return encoded(event="bts:request_reconnect", channel="", data="")


def _error(reason: str) -> Answer:
    data = {"code": None, "message": reason}
    return Answer(messages=[encoded(event="bts:error", channel="", data=data)])
