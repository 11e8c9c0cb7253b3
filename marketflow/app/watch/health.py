"""The health of the service: stores, exchanges, and the counters of lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import trio

from marketflow.app.figures import Figures
from marketflow.app.ingest.feeds import Feed
from marketflow.app.instruments.stores import StoreState
from marketflow.app.interface import (
    Counters,
    ExchangeHealth,
    ExchangeState,
    ExchangeStatus,
    HealthReport,
    Mode,
    ServiceStatus,
    StoreHealth,
)
from marketflow.app.ports import Clock, VenueSource
from marketflow.app.watch.feed_health import health_of, status_of


class Health:
    """Reports the state that each part keeps of itself, at once and without any calls."""

    def __init__(
        self,
        *,
        feeds: Mapping[Mode, Sequence[Feed]],
        venues: Mapping[str, VenueSource[Any]],
        mode: Callable[[], Mode],
        share: Figures,
        redis: StoreState,
        postgres: StoreState,
        clock: Clock,
        stale_after: float,
        version: str,
    ) -> None:
        """What it reports on.

        Args:
            feeds: of both modes.
            venues: the sources of venues, by exchange.
            mode: tells the current mode.
            share: the numbers of the share.
            redis: the state of that store.
            postgres: the state of that store.
            clock: the wall clock.
            stale_after: seconds.
            version: the running one.
        """
        self._feeds = feeds
        self._venues = venues
        self._mode = mode
        self._share = share
        self._redis = redis
        self._postgres = postgres
        self._clock = clock
        self._stale_after = stale_after
        self._version = version
        self._started = trio.current_time()
        self.serving = False
        """Whether it has started and is not stopping."""

    @property
    def live(self) -> bool:
        """Always true: if the process can answer, it works."""
        return True

    @property
    def ready(self) -> bool:
        """Neither starting nor stopping. The book can answer without either store."""
        return self.serving

    def status_of(self, feed: Feed) -> ExchangeStatus:
        """The status of a feed's exchange."""
        if feed not in self._feeds[self._mode()]:
            return "off"
        return status_of(
            feed,
            self._venues.get(feed.exchange),
            accepted=self._share.last_accepted(feed.exchange),
            stale_after=self._stale_after,
        )

    @property
    def in_cluster(self) -> bool:
        """False: this service is alone on its stores."""
        return False

    def exchange_list(self) -> list[ExchangeState]:
        """The exchanges of both modes."""
        return [
            ExchangeState(feed.exchange, mode, self.status_of(feed))
            for mode, feeds in self._feeds.items()
            for feed in feeds
        ]

    def counters(self) -> Mapping[str, Counters]:
        """The counters of each exchange's lines."""
        return self._share.counters()

    def feed_bugs(self) -> Mapping[str, int]:
        """By exchange, how many bugs of its source or codec were noticed."""
        return {feed.exchange: feed.bugs for feeds in self._feeds.values() for feed in feeds}

    def report(self) -> HealthReport:
        """The whole report. All counters are read without an await, so they add up."""
        counters = self._share.counters()
        return HealthReport(
            status=self._status(),
            mode=self._mode(),
            version=self._version,
            uptime=round(trio.current_time() - self._started, 3),
            redis=store_health(self._redis, self._clock),
            postgres=store_health(self._postgres, self._clock),
            exchanges={
                feed.exchange: self._exchange(feed, counters[feed.exchange])
                for feeds in self._feeds.values()
                for feed in feeds
            },
            updates=self._share.total(),
        )

    def _status(self) -> ServiceStatus:
        if not self.ready:
            return "unavailable"
        sources = [self.status_of(feed) for feed in self._feeds[self._mode()]]
        stores = all(state.up and state.refusal is None for state in (self._redis, self._postgres))
        well = stores and all(status == "connected" for status in sources)
        return "ok" if well else "degraded"

    def _exchange(self, feed: Feed, counters: Counters) -> ExchangeHealth:
        return health_of(
            feed,
            self._venues.get(feed.exchange),
            self.status_of(feed),
            accepted=self._share.last_accepted(feed.exchange),
            counters=counters,
            gaps=self._share.gaps().get(feed.exchange, 0),
        )


def store_health(state: StoreState, clock: Clock) -> StoreHealth:
    """What health reports of a store."""
    age = int((trio.current_time() - state.changed_at) * 1_000)
    error = state.refusal if state.up else state.error
    return StoreHealth("up" if state.up else "away", since=clock.now() - age, error=error)
