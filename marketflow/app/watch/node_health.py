"""The health of a node: its own feeds, and what it sees of the rest of the cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import attrs
import trio

from marketflow.app.figures import Figures
from marketflow.app.ingest.feeds import Feed
from marketflow.app.instruments.stores import StoreState
from marketflow.app.interface import (
    ClusterState,
    Counters,
    ExchangeHealth,
    ExchangeState,
    ExchangeStatus,
    Mode,
    NodeReport,
    ServiceStatus,
)
from marketflow.app.ports import Clock, Node, VenueSource
from marketflow.app.watch.feed_health import health_of, status_of
from marketflow.app.watch.health import store_health


class OtherNodes(Protocol):
    """What a node sees of the others."""

    @property
    def clock_is_right(self) -> bool:
        """Whether our clock agrees with the database's."""
        ...

    def owner_of(self, exchange: str) -> str | None:
        """The name of the node that has the exchange."""
        ...

    def newest(self, exchange: str) -> int:
        """The greatest timestamp (ms) that was seen of the exchange; 0: none."""
        ...

    def state(self) -> ClusterState:
        """All nodes, and what they have."""
        ...


@attrs.frozen
class Running:
    """A feed of this node."""

    feed: Feed
    venue: VenueSource[Any] | None
    """Its source, if that is a venue."""


@attrs.frozen
class Stores:
    """The state of both stores, as this node sees them."""

    redis: StoreState
    postgres: StoreState

    @property
    def well(self) -> bool:
        """Whether both answer, and take what they are given."""
        return all(state.up and state.refusal is None for state in (self.redis, self.postgres))


class NodeHealth:
    """Reports what is known, at once and without any calls. Fills the port HealthQuestions."""

    def __init__(
        self,
        *,
        node: Callable[[], Node],
        others: OtherNodes,
        exchanges: Mapping[str, Mode],
        mode: Callable[[], Mode],
        figures: Figures,
        stores: Stores,
        clock: Clock,
        stale_after: float,
    ) -> None:
        """What it reports on.

        Args:
            node: this one, as it tells of itself.
            others: what it sees of them.
            exchanges: all of the cluster, with the mode that each belongs to.
            mode: tells the current mode.
            figures: the numbers of its shares.
            stores: their states.
            clock: the wall clock.
            stale_after: seconds.
        """
        self._node = node
        self._others = others
        self._exchanges = exchanges
        self._mode = mode
        self._figures = figures
        self._stores = stores
        self._clock = clock
        self._stale_after = stale_after
        self._started = trio.current_time()
        self._feeds: dict[str, Running] = {}
        self._bugs: dict[str, int] = dict.fromkeys(exchanges, 0)
        """Of feeds that have ended."""
        self.serving = False
        """Whether it has started and is not stopping."""

    @contextmanager
    def reporting(self, feed: Feed, venue: VenueSource[Any] | None) -> Iterator[None]:
        """The feed runs here for the length of the block."""
        self._feeds[feed.exchange] = Running(feed, venue)
        try:
            yield
        finally:
            del self._feeds[feed.exchange]
            self._bugs[feed.exchange] += feed.bugs

    @property
    def live(self) -> bool:
        """Always true: if the process can answer, it works."""
        return True

    @property
    def ready(self) -> bool:
        """Neither starting nor stopping."""
        return self.serving

    def status_of(self, exchange: str) -> ExchangeStatus:
        """The status of an exchange, here or at another node."""
        if self._exchanges[exchange] != self._mode():
            return "off"
        if (running := self._feeds.get(exchange)) is not None:
            return status_of(
                running.feed,
                running.venue,
                accepted=self._figures.last_accepted(exchange),
                stale_after=self._stale_after,
            )
        if self._others.owner_of(exchange) is None:
            return "reconnecting"
        age = self._age(exchange)
        return "stale" if age is None or age > self._stale_after else "connected"

    def _age(self, exchange: str) -> float | None:
        """Seconds since the newest timestamp of an exchange that another node has."""
        newest = self._others.newest(exchange)
        return round(max(0, self._clock.now() - newest) / 1_000, 3) if newest else None

    @property
    def in_cluster(self) -> bool:
        """True: it is a node."""
        return True

    def exchange_list(self) -> list[ExchangeState]:
        """The exchanges of both modes."""
        return [ExchangeState(name, mode, self.status_of(name)) for name, mode in self._exchanges.items()]

    def counters(self) -> Mapping[str, Counters]:
        """The counters of each exchange's lines, as far as they came to this node."""
        return self._figures.counters()

    def feed_bugs(self) -> Mapping[str, int]:
        """By exchange, how many bugs of its source or codec were noticed here."""
        running = {exchange: running.feed.bugs for exchange, running in self._feeds.items()}
        return {exchange: ended + running.get(exchange, 0) for exchange, ended in self._bugs.items()}

    def report(self) -> NodeReport:
        """The whole report. All counters are read without an await, so they add up."""
        counters, node = self._figures.counters(), self._node()
        return NodeReport(
            status=self._status(),
            mode=self._mode(),
            version=node.version,
            uptime=round(trio.current_time() - self._started, 3),
            redis=store_health(self._stores.redis, self._clock),
            postgres=store_health(self._stores.postgres, self._clock),
            exchanges={name: self._exchange(name, counters[name]) for name in self._exchanges},
            updates=self._figures.total(),
            node=node.name,
            role=node.role,
            cluster=self._others.state(),
        )

    def _status(self) -> ServiceStatus:
        if not self.ready:
            return "unavailable"
        statuses = [self.status_of(name) for name, mode in self._exchanges.items() if mode == self._mode()]
        well = self._stores.well and self._others.clock_is_right
        well = well and all(status == "connected" for status in statuses)
        return "ok" if well else "degraded"

    def _exchange(self, name: str, counters: Counters) -> ExchangeHealth:
        status, running = self.status_of(name), self._feeds.get(name)
        if running is None:
            return ExchangeHealth(status, self._age(name) if status != "off" else None, 0, counters)
        return health_of(
            running.feed,
            running.venue,
            status,
            accepted=self._figures.last_accepted(name),
            counters=counters,
            gaps=self._figures.gaps().get(name, 0),
        )
