"""Kraken's WebSocket API v2: the channel `trade`."""

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
    iso,
    texts,
)
from marketflow.adapters.exchange.fake_venues.trades import RECENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marketflow.adapters.exchange.fake_venues.protocol import Session
    from marketflow.adapters.exchange.fake_venues.trades import Market, Trade


class Kraken(Kind):
    """Sends a heartbeat each second while nothing else is sent. A message may have many trades."""

    name = "kraken"
    rules = Rules(
        path="/v2",
        attempts=Rate(150, 600.0),
        attempts_after_notice=Rate(1, 5.0),
        heartbeat=1.0,
        heartbeats_when_quiet=True,
    )
    usual = ("BTC/USDT", "DOGE/USDT", "TON/USDT", "SOL/USDT", "ETH/USDT")

    def greeting(self, session: Session, now: int) -> Sequence[bytes]:  # noqa: ARG002
        """The status of the system."""
        return [_status("online", session.number)]

    def answer(self, message: bytes, session: Session, market: Market, now: int) -> Answer:  # noqa: ARG002
        """Each symbol has an answer of its own, and a snapshot unless the client wants none."""
        request = decoded(message)
        time = iso(now)
        times = {"time_in": time, "time_out": time}
        if request is None:
            return Answer(messages=[encoded(error="Malformed request", success=False, **times)])
        method, number = request.get("method"), request.get("req_id")
        if method == "ping":
            return Answer(messages=[encoded(method="pong", req_id=number, **times)], ping=True)
        params = request.get("params")
        symbols = texts(params.get("symbol")) if isinstance(params, dict) else None
        if (
            method not in ("subscribe", "unsubscribe")
            or not isinstance(params, dict)
            or params.get("channel") != "trade"
            or not symbols
        ):
            return Answer(
                messages=[
                    encoded(error="Malformed request", method=method, req_id=number, success=False, **times)
                ]
            )
        snapshot = params.get("snapshot", True) is not False
        messages: list[bytes] = []
        good = [symbol for symbol in symbols if market.lists(symbol)]
        for symbol in symbols:
            common = {"method": method, "req_id": number, **times}
            if symbol not in good:
                reason = f"Currency pair not supported {symbol}"
                messages.append(encoded(error=reason, success=False, symbol=symbol, **common))
                continue
            result: dict[str, object] = {"channel": "trade", "symbol": symbol}
            if method == "subscribe":
                result["snapshot"] = snapshot
            messages.append(encoded(result=result, success=True, **common))
            if snapshot and method == "subscribe":
                messages.append(_trades(market.recent(symbol, RECENT), "snapshot"))
        return accepted(messages, good, leaves=method == "unsubscribe")

    def messages(self, trades: Sequence[Trade], variant: str) -> Sequence[tuple[str, bytes]]:  # noqa: ARG002
        """One message for each symbol."""
        return [(symbol, _trades(group, "update")) for symbol, group in by_symbol(trades).items()]

    def heartbeats(self, session: Session, market: Market, now: int) -> Sequence[bytes]:  # noqa: ARG002
        """One for the connection, if it has subscribed to something."""
        return [encoded(channel="heartbeat")] if session.subscribed else []

    def notice(self, now: int) -> bytes:  # noqa: ARG002
        """The status of a system under maintenance."""
        return _status("maintenance", 0)


def _status(system: str, number: int) -> bytes:
    data = {"api_version": "v2", "connection_id": number, "system": system, "version": "2.0.9"}
    return encoded(channel="status", type="update", data=[data])


def _trades(trades: Sequence[Trade], kind: str) -> bytes:
    items = [
        f'{{"symbol":"{trade.symbol}","side":"{trade.side}","price":{trade.price},"qty":{trade.size},'
        f'"ord_type":"limit","trade_id":{trade.id},"timestamp":"{iso(trade.time)}"}}'
        for trade in trades
    ]
    return f'{{"channel":"trade","type":"{kind}","data":[{",".join(items)}]}}'.encode()
