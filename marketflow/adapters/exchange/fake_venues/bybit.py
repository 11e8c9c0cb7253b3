"""Bybit's WebSocket API v5: spot, the topics `publicTrade`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marketflow.adapters.exchange.fake_venues.protocol import (
    Answer,
    Kind,
    Rate,
    Rules,
    accepted,
    by_symbol,
    decoded,
    encoded,
    texts,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marketflow.adapters.exchange.fake_venues.protocol import Session
    from marketflow.adapters.exchange.fake_venues.trades import Market, Trade

BATCH = 10
"""The most arguments of a request."""
TRADES = 1_024
"""The most trades of a message."""
_TOPIC = "publicTrade."


class Bybit(Kind):
    """Takes ten arguments a request, and sends many trades a message."""

    name = "bybit"
    rules = Rules(path="/v5/public/spot", attempts=Rate(500, 300.0), batch=BATCH, idle=600.0)
    usual = ("BTCUSDT", "DOGEUSDT", "TONUSDT", "SOLUSDT", "ETHUSDT")

    def answer(self, message: bytes, session: Session, market: Market, now: int) -> Answer:  # noqa: ARG002
        """A request with an unknown symbol fails as a whole."""
        request = decoded(message)
        if request is None:
            return _result(session, "", "Params Error", success=False)
        operation, number = request.get("op"), request.get("req_id")
        if operation == "ping":
            pong = encoded(success=True, ret_msg="pong", conn_id=session.id, req_id=number, op="ping")
            return Answer(messages=[pong], ping=True)
        topics = texts(request.get("args"))
        if operation not in ("subscribe", "unsubscribe") or not topics:
            return _result(session, operation, "Params Error", number, success=False)
        if len(topics) > BATCH:
            # The server records the violation, by the number of arguments.
            return _result(session, operation, f"args size >{BATCH}", number, success=False, topics=topics)
        symbols = [topic.removeprefix(_TOPIC) for topic in topics]
        bad = [
            topic
            for topic, symbol in zip(topics, symbols, strict=True)
            if not topic.startswith(_TOPIC) or not market.lists(symbol)
        ]
        if bad:
            return _result(session, operation, f"Invalid symbol :[{','.join(bad)}]", number, success=False)
        done = encoded(success=True, ret_msg="subscribe", conn_id=session.id, req_id=number, op=operation)
        return accepted([done], symbols, leaves=operation == "unsubscribe")

    def messages(self, trades: Sequence[Trade], variant: str) -> Sequence[tuple[str, bytes]]:  # noqa: ARG002
        """Messages of up to 1,024 trades for each symbol."""
        return [
            (symbol, _trades(symbol, group[begin : begin + TRADES]))
            for symbol, group in by_symbol(trades).items()
            for begin in range(0, len(group), TRADES)
        ]


def _result(
    session: Session,
    operation: object,
    reason: str,
    number: object = None,
    *,
    success: bool,
    topics: Sequence[str] = (),
) -> Answer:
    message = encoded(success=success, ret_msg=reason, conn_id=session.id, req_id=number, op=operation)
    violation = f"{len(topics)} arguments in a request (at most {BATCH})" if topics else None
    return Answer(messages=[message], violation=violation)


def _trades(symbol: str, trades: Sequence[Trade]) -> bytes:
    items = [
        f'{{"i":"{trade.id + 2_290_000_000_000_000_000}","T":{trade.time // 1_000_000},"p":"{trade.price}",'
        f'"v":"{trade.size}","S":"{trade.side.capitalize()}","seq":{trade.id},"s":"{symbol}",'
        f'"BT":false,"RPI":false}}'
        for trade in trades
    ]
    sent = trades[-1].time // 1_000_000 + 1
    return f'{{"topic":"{_TOPIC}{symbol}","ts":{sent},"type":"snapshot","data":[{",".join(items)}]}}'.encode()
