"""Answers to questions about prices, and the errors instead. Times are Unix ms, spans [start, end)."""

from __future__ import annotations

from typing import Final, Literal

import attrs

AnswerSource = Literal["redis", "memory", "postgres"]

REDIS: Final = "redis"
MEMORY: Final = "memory"
POSTGRES: Final = "postgres"


class UnknownSymbol(LookupError):
    """No such symbol is configured."""

    def __init__(self, symbol: str, known: tuple[str, ...]) -> None:
        super().__init__(f"unknown symbol {symbol!r}")
        self.symbol = symbol
        self.known = known


class UnknownExchange(LookupError):
    """No such exchange is configured, in either mode."""

    def __init__(self, exchange: str, known: tuple[str, ...]) -> None:
        super().__init__(f"unknown exchange {exchange!r}")
        self.exchange = exchange
        self.known = known


class NoData(LookupError):
    """The names are known, but there were no updates in the span."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)


class NothingCanAnswer(Exception):
    """Neither a store nor the memory can answer for sure."""

    def __init__(self, retry_after: int = 1) -> None:
        super().__init__("the store that has the answer is away")
        self.retry_after = retry_after
        """The number of seconds after which to ask again."""


class TooManyClients(Exception):
    """The live stream has reached its limit of clients."""

    def __init__(self, most: int) -> None:
        super().__init__(f"the live stream has {most} clients already, as many as http.max_stream_clients")
        self.most = most


@attrs.frozen
class Latest:
    """The newest update."""

    symbol: str
    exchange: str
    price: float
    timestamp: int
    source: AnswerSource


@attrs.frozen(eq=False)
class PriceEvent:
    """A pair's newest update, as an event of the live stream. All clients get the same object."""

    id: int
    """Greater than the ids of all earlier events, including those of other pairs and earlier boots."""
    latest: Latest


@attrs.frozen
class Statistic:
    """The highest, lowest or average price of a span."""

    symbol: str
    exchange: str | None
    """The exchange that had the highest or lowest price; for an average the exchange that was asked for."""
    period: str
    price: float
    updates: int
    start: int
    end: int
    source: AnswerSource


@attrs.frozen
class Summary:
    """All statistics of a span at once."""

    symbol: str
    exchange: str | None
    period: str
    average_price: float
    min_price: float
    max_price: float
    open_price: float
    close_price: float
    updates: int
    start: int
    end: int
    source: AnswerSource


@attrs.frozen
class Candle:
    """A bar as the API shows it."""

    start: int
    end: int
    open: float
    high: float
    low: float
    close: float
    average: float
    updates: int
    closed: bool
    """Whether its end and the grace for late updates have passed."""


@attrs.frozen
class Candles:
    """A page of candles, oldest first."""

    symbol: str
    exchange: str | None
    interval: str
    candles: list[Candle]
    next: int | None
    """The start of the following page."""
    known_from: int | None = None
    """The time (ms) from which candles are complete, if older ones may be in a store that is away."""
