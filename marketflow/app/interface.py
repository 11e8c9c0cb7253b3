"""What the outside asks: ports that the HTTP adapter holds and the use cases fill.

Prices are answered with the classes of `answers`, the rest with the ones here. Every wait is bounded by
whoever answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol

import attrs

from marketflow.app.answers import Candles, Latest, PriceEvent, Statistic, Summary
from marketflow.app.watch.histogram import Distribution

Mode = Literal["live", "test"]
StatisticKind = Literal["highest", "lowest", "average"]
ServiceStatus = Literal["ok", "degraded", "unavailable"]
StoreStatus = Literal["up", "away"]
ExchangeStatus = Literal["connected", "stale", "reconnecting", "off"]


# ---- prices ----


class PriceQuestions(Protocol):
    """Prices, now and back in time.

    An exchange of None stands for all exchanges of the current mode. Every awaited method raises:

    - UnknownSymbol, UnknownExchange: what was named is not configured;
    - NoData: it is, but there are no updates in the span;
    - NothingCanAnswer: what could tell is in a store that is away;
    - BadPeriod: the text (`30s`, `5m`) is no period, where one is asked for.
    """

    @property
    def symbols(self) -> tuple[str, ...]:
        """The configured symbols."""
        ...

    @property
    def exchanges(self) -> tuple[str, ...]:
        """The names of both modes' exchanges."""
        ...

    async def latest(self, symbol: str, exchange: str | None) -> Latest:
        """The newest update known, however old."""
        ...

    async def latest_of_all(self, symbol: str | None, exchange: str | None) -> list[Latest]:
        """One for each exchange and symbol that has any, narrowed to what is named."""
        ...

    async def statistic(
        self, kind: StatisticKind, symbol: str, exchange: str | None, period: str
    ) -> Statistic:
        """The highest, lowest or average price over [now - period, now)."""
        ...

    async def statistics(
        self, kind: StatisticKind, symbol: str | None, exchange: str | None, period: str
    ) -> list[Statistic]:
        """One for each symbol that has any updates in the span, narrowed to what is named."""
        ...

    async def summary(self, symbol: str, exchange: str | None, period: str) -> Summary:
        """All of [now - period, now) at once."""
        ...

    async def candles(
        self, symbol: str, exchange: str | None, interval: str, start: int | None, end: int | None, limit: int
    ) -> Candles:
        """A page of at most `limit` candles within [start, end) (Unix ms), oldest first.

        `interval` is a key of CANDLE_INTERVALS. Without `start` it is the newest ones.
        """
        ...


# ---- the live stream ----


class Subscription(Protocol):
    """What one client of the live stream asked for."""

    async def receive(self) -> Sequence[PriceEvent] | None:
        """Wait for what is new: at most one event of each pair, the newest, with growing ids.

        Empty: there was nothing for a while. None: the service is stopping, and the stream is to end.
        """
        ...


class StreamQuestions(Protocol):
    """The live stream."""

    def subscribed(
        self, symbol: str | None, exchange: str | None, since: int | None
    ) -> AbstractContextManager[Subscription]:
        """A client for the length of the block; `since` is the id of the last event it has had.

        An exchange of None stands for all exchanges of the mode, whichever it is at the time. On entering it
        raises UnknownSymbol, UnknownExchange, or TooManyClients.
        """
        ...


# ---- health ----


@attrs.frozen
class Counters:
    """What became of every line; received = accepted + rejected, accepted = all that follow it."""

    received: int
    accepted: int
    rejected: Mapping[str, int]
    """By reason."""
    cached: int
    expired: int
    dropped: Mapping[str, int]
    """By reason."""
    pending: int


@attrs.frozen
class StoreHealth:
    """How a store is."""

    status: StoreStatus
    since: int
    """Unix ms: since when it has been so."""
    error: str | None = None
    """Why it is away, or, if it is up, why it took no row at all."""


@attrs.frozen
class ExchangeHealth:
    """How an exchange is."""

    status: ExchangeStatus
    last_update_age: float | None
    """Seconds since the receipt of the last accepted update; None before the first."""
    reconnects: int
    updates: Counters


@attrs.frozen
class HealthReport:
    """How the service is."""

    status: ServiceStatus
    mode: Mode
    version: str
    uptime: float
    """Seconds."""
    redis: StoreHealth
    postgres: StoreHealth
    exchanges: Mapping[str, ExchangeHealth]
    """Both modes', by name; the other mode's are off."""
    updates: Counters
    """Those of all exchanges together."""


@attrs.frozen
class ExchangeState:
    """An exchange in the list of exchanges."""

    name: str
    mode: Mode
    """The mode that it belongs to."""
    status: ExchangeStatus


class HealthQuestions(Protocol):
    """How the service is, without any wait."""

    @property
    def live(self) -> bool:
        """Whether the process is worth keeping."""
        ...

    @property
    def ready(self) -> bool:
        """Whether questions should be sent here: neither starting nor stopping, and something can answer."""
        ...

    def report(self) -> HealthReport:
        """Everything at once, the counters read in one step."""
        ...

    def counters(self) -> Mapping[str, Counters]:
        """By exchange, what became of its lines; all read in one step."""
        ...

    def exchange_list(self) -> Sequence[ExchangeState]:
        """Both modes' exchanges."""
        ...


# ---- measurements ----


@attrs.frozen
class Measurements:
    """What the service counts and times, since its start."""

    health: HealthReport
    ready: bool
    pending_limits: Mapping[str, int]
    """Pending updates at most, by exchange."""
    latency_seconds: Distribution
    """Of every cached update, from its receipt until Redis had acknowledged it."""
    flush_seconds: Distribution
    """Of every write to the window that Redis has acknowledged."""
    aggregates_written: int
    aggregates_pending: int
    """Rows of closed intervals that are not up to date in PostgreSQL."""
    aggregates_refused: int
    """Those of them that PostgreSQL did not take, though it answers."""
    stream_clients: int
    """Of the live stream, at this moment."""


class MeasurementQuestions(Protocol):
    """What monitoring asks, without any wait."""

    def measurements(self) -> Measurements:
        """Everything, read in one step."""
        ...


# ---- mode ----


class ModeQuestions(Protocol):
    """The mode, and its switch."""

    @property
    def mode(self) -> Mode:
        """The current one; during a switch the one that is left."""
        ...

    async def switch(self, mode: Mode) -> bool:
        """Switch to `mode`; returns whether it was another one before.

        Switches are serialised. Once begun, one is carried through even if the caller is cancelled.
        """
        ...


# ---- all of it ----


@attrs.frozen
class Questions:
    """Everything that can be asked of the service."""

    prices: PriceQuestions
    stream: StreamQuestions
    health: HealthQuestions
    measuring: MeasurementQuestions
    modes: ModeQuestions
