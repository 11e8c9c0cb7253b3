"""The answers of the API, with the fields that the client uses. Others are ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import attrs
import msgspec

from marketflow.client.errors import NotUnderstood

T = TypeVar("T")


@attrs.frozen
class Price:
    """The newest price of an exchange and symbol. Answers and the stream have the same fields."""

    symbol: str
    exchange: str
    price: float
    timestamp: int
    """Unix ms."""
    source: str | None = None
    volume: float | None = None
    """That of this update, in the base currency; None if it has none."""


@attrs.frozen
class Prices:
    """The newest prices, one for each exchange and symbol."""

    prices: list[Price]


@attrs.frozen
class Statistic:
    """The highest, lowest or average price of a span [start, end)."""

    symbol: str
    exchange: str | None
    period: str
    price: float
    updates: int
    start: int
    end: int
    source: str


@attrs.frozen
class Statistics:
    """Statistics, one for each symbol."""

    prices: list[Statistic]


@attrs.frozen(kw_only=True)
class Volumes:
    """What was traded in a span. Sums are None if no update has a volume, or a side."""

    volume: float | None = None
    """In the base currency."""
    quote_volume: float | None = None
    """The sum of price times volume."""
    buy_volume: float | None = None
    """The volume of updates whose taker bought."""
    sell_volume: float | None = None
    """The volume of updates whose taker sold."""
    volume_updates: int = 0
    """How many updates have a volume. If these are not all, the sums are those of a part of the market."""
    vwap: float | None = None
    """The average price weighted by volume; None without volume."""


@attrs.frozen
class Aggregate(Volumes):
    """All statistics of a span [start, end)."""

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
    source: str


@attrs.frozen
class Candle(Volumes):
    """A bar."""

    start: int
    open: float
    high: float
    low: float
    close: float
    average: float
    updates: int
    closed: bool


@attrs.frozen
class Candles:
    """A page of candles, oldest first."""

    candles: list[Candle]
    next: int | None
    """The `start` of the following page."""


@attrs.frozen
class Symbols:
    """The configured symbols."""

    symbols: list[str]


@attrs.frozen
class Exchange:
    """An exchange of either mode."""

    name: str
    mode: str
    status: str


@attrs.frozen
class Exchanges:
    """The exchanges of both modes."""

    exchanges: list[Exchange]


@attrs.frozen
class Mode:
    """The mode, and whether the request has changed it."""

    mode: str
    changed: bool


@attrs.frozen
class Updates:
    """The counters of received lines."""

    received: int
    accepted: int
    rejected: Mapping[str, int]
    cached: int
    expired: int
    dropped: Mapping[str, int]
    pending: int


@attrs.frozen
class StoreHealth:
    """The health of a store."""

    status: str
    since: int
    """Unix ms."""
    error: str | None = None


@attrs.frozen
class ExchangeHealth:
    """The health of an exchange."""

    status: str
    last_update_age: float | None
    """Seconds."""
    reconnects: int
    updates: Updates
    kind: str = "lines"
    activity: str | None = None
    """What the connection to a real exchange is doing."""
    rejected_symbols: list[str] = attrs.field(factory=list)
    gaps: int = 0
    """Trades that have never come."""
    symbols: dict[str, str] | None = None
    """The names that a real exchange has for our symbols."""


@attrs.frozen
class Health:
    """The health of the service."""

    status: str
    mode: str
    version: str
    uptime: float
    """Seconds."""
    redis: StoreHealth
    postgres: StoreHealth
    exchanges: Mapping[str, ExchangeHealth]
    updates: Updates


@attrs.frozen
class Problem:
    """An error (RFC 9457)."""

    detail: str = ""
    title: str = ""
    allowed: list[str] | None = None


def read(url: str, body: bytes | bytearray | str, kind: type[T]) -> T:
    """Decode an answer of this kind from JSON.

    Raises:
        NotUnderstood: it is not such an answer.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NotUnderstood(url, f"{kind.__name__.lower()}: {error}") from error
