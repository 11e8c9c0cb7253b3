"""How each venue is asked, and how its trades read: written from the venues' descriptions, for tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import attrs

KINDS = ("binance", "coinbase", "kraken", "okx", "bybit", "bitstamp", "gateio", "kucoin", "bitfinex")
GREETING = {"kucoin", "kraken", "bitfinex"}
"""Those that say something when a client connects."""

SYMBOLS = {
    "binance": ("BTCUSDT", "ETHUSDT"),
    "coinbase": ("BTC-USD", "ETH-USD"),
    "kraken": ("BTC/USD", "ETH/USD"),
    "okx": ("BTC-USDT", "ETH-USDT"),
    "bybit": ("BTCUSDT", "ETHUSDT"),
    "bitstamp": ("btcusd", "ethusd"),
    "gateio": ("BTC_USDT", "ETH_USDT"),
    "kucoin": ("BTC-USDT", "ETH-USDT"),
    "bitfinex": ("tBTCUSD", "tETHUSD"),
}
"""Two pairs of each kind."""


@attrs.frozen
class Seen:
    """A trade as it was read from a message. Numbers are texts as on the wire, where they may be compared."""

    symbol: str
    id: int
    time: int
    """In the venue's own unit, see `UNITS`."""
    price: float
    size: float
    side: str
    """The taker's."""


UNITS = {
    "binance": 1_000_000,
    "coinbase": 1_000,
    "kraken": 1_000,
    "okx": 1_000_000,
    "bybit": 1_000_000,
    "bitstamp": 1_000,
    "gateio": 1,
    "kucoin": 1,
    "bitfinex": 1_000_000,
}
"""The nanoseconds in the unit of `Seen.time`."""


def requests(kind: str, symbols: Sequence[str]) -> list[object]:  # noqa: PLR0911 - a table
    """The messages that subscribe to the trades of some symbols."""
    match kind:
        case "binance":
            return [{"method": "SUBSCRIBE", "params": [f"{each.lower()}@trade" for each in symbols], "id": 1}]
        case "coinbase":
            return [{"type": "subscribe", "channels": [{"name": "matches", "product_ids": list(symbols)}]}]
        case "kraken":
            params = {"channel": "trade", "symbol": list(symbols), "snapshot": False}
            return [{"method": "subscribe", "params": params}]
        case "okx":
            return [{"op": "subscribe", "args": [{"channel": "trades", "instId": each} for each in symbols]}]
        case "bybit":
            return [{"op": "subscribe", "args": [f"publicTrade.{each}" for each in symbols]}]
        case "bitstamp":
            return [
                {"event": "bts:subscribe", "data": {"channel": f"live_trades_{each}"}} for each in symbols
            ]
        case "gateio":
            return [
                {"time": 1, "channel": "spot.trades", "event": "subscribe", "payload": [each]}
                for each in symbols
            ]
        case "bitfinex":
            return [{"event": "subscribe", "channel": "trades", "symbol": each} for each in symbols]
        case _:
            topic = f"/market/match:{','.join(symbols)}"
            return [{"id": 1, "type": "subscribe", "topic": topic, "response": True}]


def is_trade(kind: str, message: bytes) -> bool:
    """Whether a message has trades that are not old."""
    value = json.loads(message) if message != b"pong" else {}
    marks: dict[str, Callable[[], bool]] = {
        "binance": lambda: "stream" in value,
        "coinbase": lambda: value.get("type") == "match",
        "kraken": lambda: value.get("channel") == "trade" and value.get("type") == "update",
        "okx": lambda: "data" in value,
        "bybit": lambda: "topic" in value,
        "bitstamp": lambda: value.get("event") == "trade",
        "gateio": lambda: value.get("event") == "update",
        "kucoin": lambda: value.get("type") == "message",
        "bitfinex": lambda: isinstance(value, list) and value[1] == "te",
    }
    return marks[kind]()


def trades(kind: str, message: bytes, channels: Mapping[int, str] | None = None) -> list[Seen]:  # noqa: PLR0911 - a table
    """The trades of a message. Fails if it does not have the form of the venue.

    `channels`: of Bitfinex, the symbols by the number of the channel.
    """
    value = json.loads(message)
    match kind:
        case "binance":
            data = value["data"]
            assert value["stream"] == f"{data['s'].lower()}@trade"
            assert (data["e"], data["M"]) == ("trade", True)
            side = {True: "sell", False: "buy"}[data["m"]]
            return [Seen(data["s"], data["t"], data["T"], _text(data["p"]), _text(data["q"]), side)]
        case "coinbase":
            side = {"sell": "buy", "buy": "sell"}[value["side"]]  # the maker's
            price, size = _text(value["price"]), _text(value["size"])
            return [Seen(value["product_id"], value["trade_id"], _us(value["time"]), price, size, side)]
        case "kraken":
            return [
                Seen(
                    each["symbol"],
                    each["trade_id"],
                    _us(each["timestamp"]),
                    _bare(each["price"]),
                    _bare(each["qty"]),
                    each["side"],
                )
                for each in value["data"]
            ]
        case "okx":
            return [
                Seen(
                    each["instId"],
                    int(_text_only(each["tradeId"])),
                    int(_text_only(each["ts"])),
                    _text(each["px"]),
                    _text(each["sz"]),
                    each["side"],
                )
                for each in value["data"]
                if value["arg"] == {"channel": "trades", "instId": each["instId"]} and each["count"] == "1"
            ]
        case "bybit":
            assert value["type"] == "snapshot"
            return [
                Seen(
                    each["s"],
                    each["seq"],
                    each["T"],
                    _text(each["p"]),
                    _text(each["v"]),
                    {"Buy": "buy", "Sell": "sell"}[each["S"]],
                )
                for each in value["data"]
                if value["topic"] == f"publicTrade.{each['s']}" and int(_text_only(each["i"]))
            ]
        case "bitstamp":
            data = value["data"]
            price, size = _text(data["price_str"]), _text(data["amount_str"])
            assert (price, size) == (_bare(data["price"]), _bare(data["amount"]))
            time = int(_text_only(data["microtimestamp"]))
            assert int(_text_only(data["timestamp"])) == time // 1_000_000
            side = {0: "buy", 1: "sell"}[data["type"]]
            symbol = value["channel"].removeprefix("live_trades_")
            return [Seen(symbol, data["id"], time, price, size, side)]
        case "gateio":
            assert value["channel"] == "spot.trades"
            data = value["result"]
            ms, _, rest = _text_only(data["create_time_ms"]).partition(".")
            time = int(ms) * 1_000_000 + int(rest.ljust(6, "0"))
            price, size = _text(data["price"]), _text(data["amount"])
            return [Seen(data["currency_pair"], data["id"], time, price, size, data["side"])]
        case "bitfinex":
            channel, form, (number, time, amount, price) = value
            assert form == "te"
            assert type(number) is type(time) is int
            side, symbol = "buy" if amount > 0 else "sell", (channels or {}).get(channel, "")
            return [Seen(symbol, number, time, _bare(price), abs(_bare(amount)), side)]
        case _:
            data = value["data"]
            assert value["topic"] == f"/market/match:{data['symbol']}"
            assert (value["subject"], data["type"]) == ("trade.l3match", "match")
            assert len(data["tradeId"]) == 24
            number, time = int(_text_only(data["sequence"])), int(_text_only(data["time"]))
            return [
                Seen(data["symbol"], number, time, _text(data["price"]), _text(data["size"]), data["side"])
            ]


def _text_only(value: object) -> str:
    assert isinstance(value, str)
    return value


def _text(value: object) -> float:
    """A number that is written as text."""
    return float(_text_only(value))


def _bare(value: object) -> float:
    """A number that is written as a number."""
    assert isinstance(value, int | float)
    return float(value)


def _us(text: str) -> int:
    """Microseconds of a time in ISO 8601."""
    assert text.endswith("Z")
    time = datetime.fromisoformat(text)
    return int(time.replace(microsecond=0).timestamp()) * 1_000_000 + time.microsecond
