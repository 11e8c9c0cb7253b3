"""OKX's WebSocket API v5: the public channel `trades`."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


class Okx(Kind):
    """Answers the text `ping`, and cuts connections that are quiet for 30 s."""

    name = "okx"
    rules = Rules(path="/ws/v5/public", attempts=Rate(3, 1.0), subscriptions=Rate(480, 3_600.0), idle=30.0)
    usual = ("BTC-USDT", "DOGE-USDT", "TON-USDT", "SOL-USDT", "ETH-USDT")

    def answer(self, message: bytes, session: Session, market: Market, now: int) -> Answer:  # noqa: ARG002
        """Each argument has an answer of its own. The last trade is sent again on subscribing."""
        if message == b"ping":
            return Answer(messages=[b"pong"], ping=True)
        request = decoded(message)
        operation = request.get("op") if request else None
        arguments = request.get("args") if request else None
        if (
            operation not in ("subscribe", "unsubscribe")
            or not isinstance(arguments, list)
            or not all(isinstance(each, dict) for each in arguments)
        ):
            reason = f"Invalid request: {message.decode(errors='replace')}"
            return Answer(messages=[_error("60012", reason, session)])
        messages: list[bytes] = []
        good: list[str] = []
        for argument in arguments:
            channel, symbol = argument.get("channel"), argument.get("instId")
            if channel != "trades" or not market.lists(symbol):
                reason = (
                    f"Wrong URL or channel:{channel},instId:{symbol} doesn't exist. Please use the correct "
                    "URL, channel and parameters referring to API document."
                )
                messages.append(_error("60018", reason, session))
                continue
            good.append(symbol)
            messages.append(
                encoded(event=operation, arg={"channel": channel, "instId": symbol}, connId=session.id)
            )
            if operation == "subscribe":
                messages += [_trade(trade) for trade in market.recent(symbol, 1)]
        return accepted(messages, good, leaves=operation == "unsubscribe")

    def messages(self, trades: Sequence[Trade], variant: str) -> Sequence[tuple[str, bytes]]:  # noqa: ARG002
        """One message for each trade."""
        return [(trade.symbol, _trade(trade)) for trade in trades]

    def notice(self, now: int) -> bytes:  # noqa: ARG002
        """Comes before an upgrade."""
        reason = "The connection will soon be closed for a service upgrade. Please reconnect."
        return encoded(event="notice", code="64008", msg=reason, connId="00000000")


def _error(code: str, reason: str, session: Session) -> bytes:
    return encoded(event="error", code=code, msg=reason, connId=session.id)


def _trade(trade: Trade) -> bytes:
    return (
        f'{{"arg":{{"channel":"trades","instId":"{trade.symbol}"}},"data":[{{"instId":"{trade.symbol}",'
        f'"tradeId":"{trade.id}","px":"{trade.price}","sz":"{trade.size}","side":"{trade.side}",'
        f'"ts":"{trade.time // 1_000_000}","count":"1","seqId":{trade.id * 3}}}]}}'
    ).encode()
