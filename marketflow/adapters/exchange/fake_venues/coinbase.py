"""Coinbase Exchange: the channels `matches` and `heartbeat`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from marketflow.adapters.exchange.fake_venues.protocol import (
    Answer,
    Kind,
    Rate,
    Rules,
    decoded,
    encoded,
    iso,
    texts,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from marketflow.adapters.exchange.fake_venues.protocol import Session
    from marketflow.adapters.exchange.fake_venues.trades import Market, Trade

_CHANNELS = ("matches", "heartbeat")


class Coinbase(Kind):
    """Wants a subscription within 5 s, and sends the maker's side."""

    name = "coinbase"
    rules = Rules(path="/", requests_of_address=Rate(8, 1.0), subscribe_within=5.0, heartbeat=1.0)
    usual = ("BTC-USDT", "DOGE-USDT", "TON-USDT", "SOL-USDT", "ETH-USDT")

    def answer(self, message: bytes, session: Session, market: Market, now: int) -> Answer:  # noqa: ARG002
        """A request with an unknown product or channel fails as a whole."""
        request = decoded(message)
        if request is None:
            return _failed("Malformed JSON")
        kind = request.get("type")
        if kind not in ("subscribe", "unsubscribe"):
            return _failed("Type has to be either subscribe or unsubscribe")
        channels = _channels(request)
        if wrong := _wrong(channels, market):
            return _failed("Failed to subscribe", wrong)
        matches, heartbeats = (channels.get(channel, []) for channel in _CHANNELS)
        if kind == "unsubscribe":
            for product in heartbeats:
                session.heartbeats.pop(product, None)
            kept = [each for each in session.subscribed if each not in matches]
            return Answer(messages=[_subscriptions(kept, session.heartbeats)], unsubscribe=matches)
        session.heartbeats.update(dict.fromkeys(heartbeats))
        new = [product for product in matches if product not in session.subscribed]
        old = [_match(trade, "last_match") for each in new for trade in market.recent(each, 1)]
        wanted = {**session.subscribed, **dict.fromkeys(matches)}
        return Answer(messages=[*old, _subscriptions(wanted, session.heartbeats)], subscribe=matches)

    def messages(self, trades: Sequence[Trade], variant: str) -> Sequence[tuple[str, bytes]]:  # noqa: ARG002
        """One message for each trade."""
        return [(trade.symbol, _match(trade, "match")) for trade in trades]

    def heartbeats(self, session: Session, market: Market, now: int) -> Sequence[bytes]:
        """One for each product of the channel."""
        found = []
        for product in session.heartbeats:
            if market.lists(product):
                last = market.recent(product, 1)[-1].id
                found.append(
                    encoded(
                        type="heartbeat",
                        last_trade_id=last,
                        product_id=product,
                        sequence=_sequence(last) + 1,
                        time=iso(now),
                    )
                )
        return found


def _channels(request: Mapping[str, Any]) -> dict[str, list[str]]:
    """The products of each channel of a request; empty if it is malformed."""
    everywhere = texts(request.get("product_ids")) or []
    found: dict[str, list[str]] = {}
    channels = request.get("channels")
    for each in channels if isinstance(channels, list) else []:
        if isinstance(each, str):
            found[each] = everywhere
        elif isinstance(each, dict):
            products = texts(each.get("product_ids", everywhere))
            if products is None:
                return {}
            found[str(each.get("name"))] = products
    return found


def _wrong(channels: Mapping[str, list[str]], market: Market) -> str | None:
    """What is wrong with a request, if anything."""
    for channel, products in channels.items():
        if channel not in _CHANNELS:
            return f"{channel} is not a valid channel"
        for product in products:
            if not market.lists(product):
                return f"{product} is not a valid product"
    return None if channels else "channels are required"


def _failed(what: str, why: str | None = None) -> Answer:
    return Answer(messages=[encoded(type="error", message=what, reason=why)])


def _subscriptions(matches: Mapping[str, None] | Sequence[str], heartbeats: Mapping[str, None]) -> bytes:
    channels = [
        {"name": name, "product_ids": list(products), "account_ids": None}
        for name, products in zip(_CHANNELS, (matches, heartbeats), strict=True)
        if products
    ]
    return encoded(type="subscriptions", channels=channels)


def _match(trade: Trade, kind: str) -> bytes:
    maker = "sell" if trade.side == "buy" else "buy"
    return (
        f'{{"type":"{kind}","trade_id":{trade.id},"side":"{maker}","size":"{trade.size}",'
        f'"price":"{trade.price}","product_id":"{trade.symbol}","sequence":{_sequence(trade.id)},'
        f'"time":"{iso(trade.time)}"}}'
    ).encode()


def _sequence(trade_id: int) -> int:
    """Orders have numbers too, so those of trades have gaps."""
    return trade_id * 7
