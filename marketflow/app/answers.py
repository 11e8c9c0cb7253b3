"""Answers to questions about prices, and the errors instead. Times are Unix ms, spans [start, end)."""

from __future__ import annotations

from typing import Final, Literal, TypedDict

import attrs

from marketflow.domain.bars import Bar

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
    volume: float | None = None
    """That of this update; None if it was not told, or is not known any more."""


@attrs.frozen(eq=False)
class PriceEvent:
    """A pair's newest update, as an event of the live stream. All clients get the same object."""

    id: int
    """Greater than the ids of all earlier events, including those of other pairs and earlier boots."""
    latest: Latest


@attrs.frozen
class PriceAt:
    """The last update at or before a time."""

    symbol: str
    exchange: str
    price: float
    timestamp: int
    """Of the update."""
    time: int
    """The time that was asked for; now, if that is yet to come."""
    resolution: str
    """`exact`, or the length of the bar or row whose close it is: updates between its end and the time are
    not known one by one any more."""
    source: AnswerSource


@attrs.frozen
class Statistic:
    """The highest, lowest or average price of a span."""

    symbol: str
    exchange: str | None
    """The exchange that had the highest or lowest price; for an average the exchange that was asked for."""
    period: str | None
    """That was asked for; None: a start was."""
    price: float
    updates: int
    start: int
    end: int
    source: AnswerSource


class Volumes(TypedDict):
    """What was traded in a span, as the answers about it tell it."""

    volume: float | None
    quote_volume: float | None
    buy_volume: float | None
    sell_volume: float | None
    volume_updates: int
    vwap: float | None


def volumes_of(bar: Bar) -> Volumes:
    """What the updates of a bar have traded."""
    traded = bar.traded
    return Volumes(
        volume=None if traded is None else traded.volume,
        quote_volume=None if traded is None else traded.quote,
        buy_volume=None if traded is None else traded.buy,
        sell_volume=None if traded is None else traded.sell,
        volume_updates=0 if traded is None else traded.updates,
        vwap=None if traded is None else traded.vwap(bar.min, bar.max),
    )


@attrs.frozen
class Summary:
    """All statistics of a span at once."""

    symbol: str
    exchange: str | None
    period: str | None
    average_price: float
    min_price: float
    max_price: float
    open_price: float
    close_price: float
    updates: int
    volume: float | None
    quote_volume: float | None
    buy_volume: float | None
    sell_volume: float | None
    volume_updates: int
    """How many updates told their volume. The others of these are None where none did."""
    vwap: float | None
    """The price weighted by volume; None without volume."""
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
    volume: float | None
    quote_volume: float | None
    buy_volume: float | None
    sell_volume: float | None
    volume_updates: int
    """How many updates told their volume. The others of these are None where none did."""
    vwap: float | None
    """The price weighted by volume; None without volume."""
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
