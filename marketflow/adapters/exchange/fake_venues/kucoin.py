"""KuCoin: a token by HTTP, then the topics `/market/match`."""

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
    from collections.abc import Mapping, Sequence

    from marketflow.adapters.exchange.fake_venues.protocol import Session
    from marketflow.adapters.exchange.fake_venues.trades import Market, Trade

TOKENS = "/api/v1/bullet-public"
PING_INTERVAL = 18_000
PING_TIMEOUT = 10_000
"""Both in ms."""
DAY = 86_400.0
_TOPIC = "/market/match:"


class Kucoin(Kind):
    """Wants a new token for each connection, and pings of its own form."""

    name = "kucoin"
    rules = Rules(
        path="/endpoint",
        attempts=Rate(30, 60.0),
        messages=Rate(100, 10.0),
        batch=100,
        symbols=300,
        greets_after=0.05,
        client_pings_within=(PING_INTERVAL + PING_TIMEOUT) / 1_000,
        lifetime=DAY,
    )
    usual = ("BTC-USDT", "DOGE-USDT", "TON-USDT", "SOL-USDT", "ETH-USDT")

    def __init__(self) -> None:
        self._given = 0
        self._unused: set[str] = set()

    def url(self, address: str, *, secure: bool) -> str:
        """Where the token is asked for."""
        return f"{'https' if secure else 'http'}://{address}"

    def post(self, path: str, address: str, *, secure: bool) -> bytes | None:
        """A new token, and the address that takes it."""
        if path.partition("?")[0] != TOKENS:
            return None
        self._given += 1
        token = f"token-{self._given:06d}"
        self._unused.add(token)
        server = {
            "endpoint": f"{'wss' if secure else 'ws'}://{address}{self.rules.path}",
            "encrypt": secure,
            "protocol": "websocket",
            "pingInterval": PING_INTERVAL,
            "pingTimeout": PING_TIMEOUT,
        }
        return encoded(code="200000", data={"token": token, "instanceServers": [server]})

    def refusal(self, query: Mapping[str, str]) -> str | None:
        """A token is good for one connection."""
        token = query.get("token", "")
        if token not in self._unused:
            return "no token" if not token else "the token is unknown or used"
        self._unused.remove(token)
        return None

    def greeting(self, session: Session, now: int) -> Sequence[bytes]:  # noqa: ARG002
        """Before it, a client must not subscribe."""
        return [encoded(id=session.query.get("connectId", session.id), type="welcome")]

    def answer(self, message: bytes, session: Session, market: Market, now: int) -> Answer:  # noqa: ARG002
        """A request with an unknown symbol fails as a whole."""
        request = decoded(message)
        if request is None or "id" not in request:
            return Answer(messages=[encoded(id="", type="error", code=400, data="invalid message")])
        number, kind, topic = str(request["id"]), request.get("type"), request.get("topic")
        if kind == "ping":
            return Answer(messages=[encoded(id=number, type="pong")], ping=True)
        if kind not in ("subscribe", "unsubscribe"):
            return _error(number, 400, f"type {kind} is not supported")
        symbols = topic.removeprefix(_TOPIC).split(",") if isinstance(topic, str) else []
        if not str(topic).startswith(_TOPIC) or not all(map(market.lists, symbols)):
            return _error(number, 404, f"topic {topic} is not found")
        messages = [encoded(id=number, type="ack")] if request.get("response") is True else []
        return accepted(messages, symbols, leaves=kind == "unsubscribe")

    def messages(self, trades: Sequence[Trade], variant: str) -> Sequence[tuple[str, bytes]]:  # noqa: ARG002
        """One message for each trade."""
        return [(trade.symbol, _trade(trade)) for trade in trades]


def _error(number: str, code: int, reason: str) -> Answer:
    return Answer(messages=[encoded(id=number, type="error", code=code, data=reason)])


def _trade(trade: Trade) -> bytes:
    return (
        f'{{"type":"message","topic":"{_TOPIC}{trade.symbol}","subject":"trade.l3match","data":{{'
        f'"symbol":"{trade.symbol}","side":"{trade.side}","type":"match","sequence":"{trade.id}",'
        f'"size":"{trade.size}","price":"{trade.price}","time":"{trade.time}",'
        f'"tradeId":"{trade.id:024x}"}}}}'
    ).encode()
