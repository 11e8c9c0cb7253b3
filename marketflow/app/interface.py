"""The service's questions as ports: the use cases implement them, the HTTP adapter calls them.

Questions about prices are answered with the classes of `answers`, all others with the classes here. Every
wait has a time limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol

import attrs

from marketflow.app.answers import Candles, Latest, PriceAt, PriceEvent, Statistic, Summary
from marketflow.app.instruments.histogram import Distribution
from marketflow.domain import modes
from marketflow.domain.periods import Range

Mode = modes.Mode
Names = tuple[str, ...] | None
"""Names of symbols or exchanges, each once; None: all."""
StatisticKind = Literal["highest", "lowest", "average"]
ServiceStatus = Literal["ok", "degraded", "unavailable"]
StoreStatus = Literal["up", "away"]
ExchangeStatus = Literal["connected", "stale", "reconnecting", "off"]


def only(names: Names) -> str | None:
    """The name, if it is the only one; None if there are several, or all."""
    return names[0] if names is not None and len(names) == 1 else None


# ---- prices ----


class PriceQuestions(Protocol):
    """Questions about current and past prices.

    Exchanges of None stand for all exchanges of the current mode, symbols of None for all symbols. Every
    awaited method raises:

    - UnknownSymbol, UnknownExchange: the name is not configured;
    - NoData: there are no updates in the span;
    - NothingCanAnswer: the answer is in a store that is away;
    - BadPeriod: the text of the period is not valid (valid are `30s`, `5m`).
    """

    @property
    def symbols(self) -> tuple[str, ...]:
        """The configured symbols."""
        ...

    @property
    def exchanges(self) -> tuple[str, ...]:
        """The names of both modes' exchanges."""
        ...

    async def latest(self, symbol: str, exchanges: Names) -> Latest:
        """The newest known update, of any age."""
        ...

    async def latest_of_all(self, symbols: Names, exchanges: Names) -> list[Latest]:
        """The newest update of each exchange and symbol that has one."""
        ...

    async def at(self, symbol: str, exchanges: Names, time: int) -> PriceAt:
        """The last update at or before a time (Unix ms)."""
        ...

    async def statistic(self, kind: StatisticKind, symbol: str, exchanges: Names, asked: Range) -> Statistic:
        """The highest, lowest or average price over a span."""
        ...

    async def statistics(
        self, kind: StatisticKind, symbols: Names, exchanges: Names, asked: Range
    ) -> list[Statistic]:
        """The same for each symbol that has updates in the span."""
        ...

    async def summary(self, symbol: str, exchanges: Names, asked: Range) -> Summary:
        """All statistics of a span at once."""
        ...

    async def summaries(self, symbols: Names, exchanges: Names, asked: Range) -> list[Summary]:
        """The same for each symbol that has updates in the span."""
        ...

    async def candles(
        self, symbol: str, exchanges: Names, interval: str, start: int | None, end: int | None, limit: int
    ) -> Candles:
        """A page of at most `limit` candles within [start, end) (Unix ms), oldest first.

        `interval` is a key of CANDLE_INTERVALS. Without `start` these are the newest ones.
        """
        ...


# ---- the live stream ----


class Subscription(Protocol):
    """One client of the live stream."""

    async def receive(self) -> Sequence[PriceEvent] | None:
        """Wait for newer events: at most one of each pair, the newest, with growing ids.

        Empty: there were none for a while. None: the service is stopping, and the stream must end.
        """
        ...


class StreamQuestions(Protocol):
    """The live stream."""

    def subscribed(
        self, symbols: Names, exchanges: Names, since: int | None
    ) -> AbstractContextManager[Subscription]:
        """A client for the length of the block; `since` is the id of the last event that it got.

        Exchanges of None stand for all exchanges of the current mode, also after a switch. Entering the
        block raises UnknownSymbol, UnknownExchange, or TooManyClients.
        """
        ...


# ---- health ----


@attrs.frozen
class Counters:
    """The counters of received lines.

    received = accepted + rejected, and accepted = cached + expired + dropped + pending.
    """

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
    """The state of a store."""

    status: StoreStatus
    since: int
    """When the status last changed (Unix ms)."""
    error: str | None = None
    """Why it is away; or, if it is up, why it refused all rows."""


@attrs.frozen
class ExchangeHealth:
    """The state of an exchange's feed."""

    status: ExchangeStatus
    last_update_age: float | None
    """Seconds since the receipt of the last accepted update; None before the first."""
    reconnects: int
    updates: Counters
    kind: str = "lines"
    """Its kind in the configuration."""
    activity: str | None = None
    """What the connection to a venue is doing, in a few words; None for other exchanges."""
    rejected_symbols: Sequence[str] = ()
    """Those of our symbols that a venue has refused to send."""
    gaps: int = 0
    """How many trades a venue has numbered that have never come, as far as its ids tell."""
    symbols: Mapping[str, str] | None = None
    """Our symbols with a venue's names for them; None for other exchanges."""


@attrs.frozen
class HealthReport:
    """The state of the service."""

    status: ServiceStatus
    mode: Mode
    version: str
    uptime: float
    """Seconds."""
    redis: StoreHealth
    postgres: StoreHealth
    exchanges: Mapping[str, ExchangeHealth]
    """The exchanges of both modes, by name; those of the other mode are off."""
    updates: Counters
    """The sums over all exchanges."""


@attrs.frozen
class NodeState:
    """A node of a cluster, as the others see it."""

    role: str
    """`all`, `ingest` or `api`."""
    version: str
    url: str
    """Where it answers questions."""
    heard: float
    """Seconds since it was last heard of."""


@attrs.frozen
class Ownership:
    """Which node has an exchange."""

    owner: str | None
    """None: no node has it."""
    epoch: int
    """It grows each time that another node takes it; 0: none ever had it."""
    since: int | None
    """Since when this node knows of that (Unix ms)."""


@attrs.frozen
class ClusterState:
    """The nodes of a cluster, and what they have."""

    nodes: Mapping[str, NodeState]
    exchanges: Mapping[str, Ownership]


@attrs.frozen(kw_only=True)
class NodeReport(HealthReport):
    """The state of a node in a cluster. Counters are of this node alone."""

    node: str
    role: str
    cluster: ClusterState


@attrs.frozen
class ExchangeState:
    """An exchange in the list of exchanges."""

    name: str
    mode: Mode
    """The mode that it belongs to."""
    status: ExchangeStatus


class HealthQuestions(Protocol):
    """The state of the service. No method waits."""

    @property
    def live(self) -> bool:
        """Whether the process works. If not, it should be restarted."""
        ...

    @property
    def ready(self) -> bool:
        """Whether it can answer questions: it is neither starting nor stopping."""
        ...

    @property
    def in_cluster(self) -> bool:
        """Whether this is a node of a cluster, whose report is a NodeReport. May be read in any thread."""
        ...

    def report(self) -> HealthReport:
        """Everything at once, the counters read in one step."""
        ...

    def counters(self) -> Mapping[str, Counters]:
        """The counters of each exchange's lines, all read in one step."""
        ...

    def exchange_list(self) -> Sequence[ExchangeState]:
        """The exchanges of both modes."""
        ...


# ---- measurements ----


@attrs.frozen
class WriterFigures:
    """The counters and durations of a share's writers since the boot, and the limits of its buffers."""

    pending_limits: Mapping[str, int]
    """The most pending updates, by exchange."""
    latency_seconds: Distribution
    """The time from the receipt of each cached update until Redis acknowledged it."""
    flush_seconds: Distribution
    """How long each acknowledged write to Redis took."""
    volumes_ignored: Mapping[str, int]
    """By exchange, how many accepted updates told a volume that does not count."""
    aggregates_written: int
    aggregates_pending: int
    """Rows of closed intervals that are not up to date in PostgreSQL."""
    aggregates_refused: int
    """Pending rows that PostgreSQL has refused, although it answers."""


@attrs.frozen
class ClusterFigures:
    """What a node of a cluster has, what became of its leases, and how far it is behind."""

    held: Mapping[str, bool]
    """By exchange of the mode, whether this node has it."""
    epochs: Mapping[str, int]
    """By exchange, how often it was taken, by any node; 0: never."""
    takeovers: Mapping[str, int]
    """By reason, how often this node has taken an exchange."""
    fenced: Mapping[str, int]
    """By store, how often that has shown this node that another one has its exchange."""
    redirects: Mapping[str, int]
    """By kind of answer, how often a server of a Redis Cluster has sent this node elsewhere."""
    mirror_lag: Mapping[str, float]
    """By exchange, the seconds since its mirror was up to date."""
    clock_offset: float | None
    """Seconds by which the database's clock is ahead of ours, at least; None: not known yet."""


@attrs.frozen
class Measurements(WriterFigures):
    """The counters and durations of the service since its start."""

    health: HealthReport
    ready: bool
    feed_bugs: Mapping[str, int]
    """By exchange how many bugs of its source or codec were noticed: wrong errors, and forgotten stops."""
    stream_clients: int
    """The current number of clients of the live stream."""
    cluster: ClusterFigures | None = None
    """None: the service is no node of a cluster."""


class MeasurementQuestions(Protocol):
    """Measurements for monitoring. No method waits."""

    def measurements(self) -> Measurements:
        """Everything, read in one step."""
        ...


# ---- mode ----


class ModeQuestions(Protocol):
    """The mode, and its switch."""

    @property
    def mode(self) -> Mode:
        """The current mode; during a switch the old one."""
        ...

    async def switch(self, mode: Mode) -> bool:
        """Switch to `mode`; returns whether the mode was another one before.

        Switches are serialised. A switch that has begun is completed even if the caller is cancelled.
        """
        ...


# ---- all of it ----


@attrs.frozen
class Questions:
    """All ports of this module together."""

    prices: PriceQuestions
    stream: StreamQuestions
    health: HealthQuestions
    measuring: MeasurementQuestions
    modes: ModeQuestions
