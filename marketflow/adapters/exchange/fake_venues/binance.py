"""Binance's spot streams, at `/stream`."""

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
    texts,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marketflow.adapters.exchange.fake_venues.protocol import Session
    from marketflow.adapters.exchange.fake_venues.trades import Market, Trade

DAY = 86_400.0
_STREAM = "@trade"


class Binance(Kind):
    """Pings each 20 s and wants pongs. Streams are in lower case, symbols in trades in upper case."""

    name = "binance"
    rules = Rules(
        path="/stream",
        attempts=Rate(300, 300.0),
        messages=Rate(5, 1.0),
        control_frames_count=True,
        symbols=1_024,
        pings_every=20.0,
        pong_within=60.0,
        lifetime=DAY,
    )
    usual = ("BTCUSDT", "DOGEUSDT", "TONUSDT", "SOLUSDT", "ETHUSDT")

    def symbol(self, given: str) -> str:
        """Upper case."""
        return given.upper()

    def answer(self, message: bytes, session: Session, market: Market, now: int) -> Answer:  # noqa: ARG002
        """A request with an unknown stream fails as a whole."""
        request = decoded(message)
        if request is None:
            return Answer(messages=[encoded(code=3, msg="Invalid JSON: expected value at line 1 column 1")])
        number, method, params = request.get("id"), request.get("method"), texts(request.get("params"))
        if type(number) is not int or number < 0:
            reason = "Invalid request: request ID must be an unsigned integer"
            return Answer(messages=[encoded(code=2, msg=reason)])
        if method not in ("SUBSCRIBE", "UNSUBSCRIBE") or params is None:
            return Answer(messages=[encoded(code=2, msg="Invalid request: unknown method", id=number)])
        symbols = [name.removesuffix(_STREAM).upper() for name in params]
        done = b'{"result":null,"id":%d}' % number
        if method == "UNSUBSCRIBE":
            return accepted([done], symbols, leaves=True)
        for name, symbol in zip(params, symbols, strict=True):
            if not name.endswith(_STREAM) or name != name.lower() or not market.lists(symbol):
                reason = f"Invalid request: unknown stream {name}"
                return Answer(messages=[encoded(code=2, msg=reason, id=number)])
        return accepted([done], symbols, leaves=False)

    def variant(self, session: Session) -> str:
        """`us` if the URL asks for microseconds."""
        return "us" if session.query.get("timeUnit", "").upper() == "MICROSECOND" else "ms"

    def messages(self, trades: Sequence[Trade], variant: str) -> Sequence[tuple[str, bytes]]:
        """One message for each trade."""
        unit = 1_000 if variant == "us" else 1_000_000
        return [(trade.symbol, _trade(trade, trade.time // unit)) for trade in trades]

    def notice(self, now: int) -> bytes:
        """The event that announces a stop."""
        return encoded(e="serverShutdown", E=now // 1_000_000)


def _trade(trade: Trade, time: int) -> bytes:
    symbol, sold = trade.symbol, "true" if trade.side == "sell" else "false"
    return (
        f'{{"stream":"{symbol.lower()}@trade","data":{{"e":"trade","E":{time},"s":"{symbol}","t":{trade.id},'
        f'"p":"{trade.price}","q":"{trade.size}","T":{time},"m":{sold},"M":true}}}}'
    ).encode()
