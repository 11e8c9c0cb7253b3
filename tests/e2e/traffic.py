"""The lines that were sent to the service, and the expected results, computed independently and simply."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterable
from itertools import groupby
from typing import Any

import attrs

START_PRICES = {"BTCUSDT": 100_000.0, "DOGEUSDT": 0.3, "TONUSDT": 3.9, "SOLUSDT": 200.0, "ETHUSDT": 3_050.0}
SYMBOLS = tuple(START_PRICES)
NAMES = ("exchange1", "exchange2", "exchange3")


def now() -> int:
    """The current time in Unix ms."""
    return time.time_ns() // 1_000_000


def line(symbol: Any, price: Any, timestamp: Any) -> bytes:
    """A line in the form that exchanges send, with any values."""
    fields = {"symbol": symbol, "price": price, "timestamp": timestamp}
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


@attrs.frozen
class Sent:
    """A good line."""

    exchange: str
    symbol: str
    price: float
    timestamp: int

    @property
    def line(self) -> bytes:
        return line(self.symbol, self.price, self.timestamp)


def lines(sent: Iterable[Sent]) -> bytes:
    return b"".join(each.line for each in sent)


def any_lines(rng: random.Random, exchange: str, count: int, *, earliest: int, latest: int) -> list[Sent]:
    """Good lines in random order of time, many in the same ms, some equal; `latest` is among them."""
    made: list[Sent] = []
    for _ in range(count):
        if made and rng.random() < 0.05:
            made.append(made[-1])
            continue
        symbol = rng.choice(SYMBOLS)
        price = START_PRICES[symbol] * rng.choice([rng.uniform(0.9, 1.1), 1.0, 2e-7])
        made.append(Sent(exchange, symbol, price, rng.randint(earliest, latest)))
    return made


def tick(rng: random.Random, exchange: str, timestamp: int) -> list[Sent]:
    """One line for each symbol, as the real exchanges send every 100 ms."""
    return [
        Sent(exchange, symbol, START_PRICES[symbol] * rng.uniform(0.99, 1.01), timestamp)
        for symbol in SYMBOLS
    ]


@attrs.frozen
class Expected:
    """The expected bar of a span, computed from the lines."""

    count: int
    average: float
    min: float
    max: float
    opens: frozenset[float]
    """The first price. Of equal timestamps of several exchanges, any one may be the first."""
    closes: frozenset[float]
    """The last price, with the same ambiguity."""
    lowest_on: frozenset[str]
    highest_on: frozenset[str]


def expected(sent: Iterable[Sent]) -> Expected | None:
    """The bar of lines, given in the order in which each exchange sent them; None without lines."""
    chosen = list(sent)
    if not chosen:
        return None
    prices = [each.price for each in chosen]
    first, last = min(each.timestamp for each in chosen), max(each.timestamp for each in chosen)
    opens: dict[str, float] = {}
    closes: dict[str, float] = {}
    for each in chosen:
        if each.timestamp == first:
            opens.setdefault(each.exchange, each.price)
        if each.timestamp == last:
            closes[each.exchange] = each.price
    return Expected(
        count=len(prices),
        average=math.fsum(prices) / len(prices),
        min=min(prices),
        max=max(prices),
        opens=frozenset(opens.values()),
        closes=frozenset(closes.values()),
        lowest_on=frozenset(each.exchange for each in chosen if each.price == min(prices)),
        highest_on=frozenset(each.exchange for each in chosen if each.price == max(prices)),
    )


def within(
    sent: Iterable[Sent], *, symbol: str, exchange: str | None, start: int, end: int
) -> Expected | None:
    """The bar of [start, end), of one exchange or of all."""
    return expected(
        each
        for each in sent
        if each.symbol == symbol and exchange in {None, each.exchange} and start <= each.timestamp < end
    )


def rows(sent: Iterable[Sent], interval: int) -> dict[tuple[str, str, int], Expected]:
    """The expected aggregates, by symbol, exchange and the interval's end (ms)."""

    def key(each: Sent) -> tuple[str, str, int]:
        return each.symbol, each.exchange, (each.timestamp // interval + 1) * interval

    return {
        place: bar
        for place, group in groupby(sorted(sent, key=key), key)  # stable: the order of sending is kept
        if (bar := expected(group)) is not None
    }
