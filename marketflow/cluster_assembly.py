"""The composition root of a node of a cluster. `assembly.py` is that of a service that is alone."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any, Final

import attrs

from marketflow.app.cluster.balance import Balance
from marketflow.app.cluster.clock_offset import ClockOffset
from marketflow.app.cluster.cluster_stream import ClusterStream
from marketflow.app.cluster.feeding import Feeding, Recording
from marketflow.app.cluster.hold import Hold
from marketflow.app.cluster.holdings import Holdings, Times
from marketflow.app.cluster.measuring import NodeMeasuring
from marketflow.app.cluster.member import Member
from marketflow.app.cluster.mirror import Mirror
from marketflow.app.cluster.modes import ClusterModes
from marketflow.app.cluster.node_figures import NodeFigures
from marketflow.app.cluster.sight import LastSight, SeenCluster, WatchedLeases
from marketflow.app.cluster.tenancy import Tenancy
from marketflow.app.cluster.views import ClusterViews
from marketflow.app.cluster.watching import MirrorWatch
from marketflow.app.ingest.feeds import Feed
from marketflow.app.instruments.stores import StoreState
from marketflow.app.interface import Questions
from marketflow.app.ports import VenueSource, Window
from marketflow.app.questions.candles import CandlePages
from marketflow.app.questions.newest import NewestUpdates
from marketflow.app.questions.past import PastUpdates
from marketflow.app.questions.queries import Queries
from marketflow.app.questions.spans import Spans
from marketflow.app.share.fence import Held
from marketflow.app.share.making import make_share
from marketflow.app.share.share import Share
from marketflow.app.stream.subscriptions import PriceStream
from marketflow.app.watch.measuring import Measuring
from marketflow.app.watch.node_health import NodeHealth, Stores
from marketflow.assembly import backoff_of, idle_timeout_of, last_well_of, share_options
from marketflow.cluster_outside import ClusterOutside
from marketflow.config import Settings
from marketflow.sources import shared_of

RECORDED_LEASES: Final = 4
"""For how many lease times an exchange is recorded before its term. A takeover takes less than three."""


@attrs.frozen
class ClusterParts:
    """The parts that the task tree of a node runs."""

    member: Member
    watch: MirrorWatch
    streamed: ClusterStream
    stream: PriceStream
    health: NodeHealth
    questions: Questions


def assemble_node(settings: Settings, outside: ClusterOutside) -> ClusterParts:
    """Make all parts. Nothing runs yet."""
    clock, cluster = outside.clock, settings.cluster
    names = list(outside.exchanges)
    sizes = Counter(outside.exchanges.values())
    pairs = [(name, symbol) for name in names for symbol in settings.symbols]
    interval = settings.aggregation.interval

    # ---- what others have ----
    redis, postgres = StoreState("redis"), StoreState("postgres")
    sight, offset = LastSight(), ClockOffset(clock)
    leases = WatchedLeases(outside.leases, sight, offset, postgres)
    mirrors = {
        name: Mirror(name, window=outside.reading, changes=outside.changes, clock=clock) for name in names
    }
    views = ClusterViews(mirrors)
    modes = ClusterModes(settings.mode, outside.exchanges, sight, leases)

    # ---- what it has itself ----
    def share_of(hold: Hold, window: Window, venue: VenueSource[Any] | None) -> Share:
        exchange = hold.term.exchange
        return make_share(
            boot=hold.term.id,
            limits={exchange: settings.pipeline.max_pending_updates // sizes[outside.exchanges[exchange]]},
            symbols=settings.symbols,
            generated=settings.generator.exchanges,
            numbered=[] if venue is None else [(exchange, symbol) for symbol in venue.symbols],
            window=window,
            store=outside.store_of(hold.term),
            spool=outside.spool_of(hold.term),
            clock=clock,
            options=share_options(settings),
            held=Held(hold.term, hold.confirmed),
        )

    def feeding_of(exchange: str) -> tuple[Feeding, VenueSource[Any] | None]:
        source, record = outside.source_of(exchange), recording.record()
        feed = Feed(
            source,
            backoff=backoff_of(source, settings, outside.entropy),
            idle_timeout=idle_timeout_of(source, settings),
            last_well=partial(last_well_of, source, record.last_accepted),
        )
        feeding = Feeding(feed, record, recording, workers=settings.pipeline.workers_per_exchange)
        return feeding, source if isinstance(source, VenueSource) else None

    figures = NodeFigures(names)
    health = NodeHealth(
        node=lambda: member.node,
        others=SeenCluster(sight, offset, mirrors),
        exchanges=outside.exchanges,
        mode=lambda: modes.mode,
        figures=figures,
        stores=Stores(redis, postgres),
        clock=clock,
        stale_after=settings.feeds.stale_after / 1_000,
    )
    times = Times(
        lasts=cluster.lease_ttl / 1_000,
        renew=cluster.lease_renew / 1_000,
        scan=cluster.lease_scan / 1_000,
        calm=cluster.settle / 1_000,
        handover=settings.shutdown_timeout / 4_000,
    )
    shared = shared_of(settings)
    recording = Recording(
        reading=outside.reading,
        symbols=settings.symbols,
        window_length=settings.window.length,
        most=settings.pipeline.max_pending_updates // max(1, len(shared)),
        seconds=RECORDED_LEASES * times.lasts,
    )
    member = Member(
        outside.node,
        mode=settings.mode,
        balance=Balance(
            outside.exchanges,
            lasts=times.lasts,
            calm=times.calm,
            shared=shared,
            standby=cluster.standby,
        ),
        holdings=Holdings(
            leases,
            Tenancy(
                window_of=outside.window_of,
                share_of=share_of,
                feeding_of=feeding_of,
                shared=shared,
                views=views,
                figures=figures,
                reporting=health.reporting,
                clock=clock,
                spool_seconds=settings.shutdown_timeout / 4_000,
            ),
            times=times,
            elapsed=outside.elapsed,
            entropy=outside.entropy,
        ),
        leases=leases,
        times=times,
        elapsed=outside.elapsed,
        may_take=offset.may_take,
    )
    watch = MirrorWatch(lambda: [mirrors[name] for name in modes.of_mode], redis)

    # ---- questions ----
    spans = Spans(
        views=views,
        window=outside.reading,
        store=outside.rows,
        interval=interval,
        window_length=settings.window.length,
        retention=settings.aggregation.retention,
    )
    queries = Queries(
        symbols=settings.symbols,
        exchanges=names,
        exchanges_of_mode=lambda: modes.of_mode,
        newest=NewestUpdates(views=views, store=outside.rows),
        past=PastUpdates(spans),
        spans=spans,
        pages=CandlePages(spans, interval=interval, grace=settings.aggregation.grace),
        clock=clock,
    )
    streamed = ClusterStream(views, pairs, began_at=clock.now())
    stream = PriceStream(
        bars=streamed,
        pairs=pairs,
        exchanges_of_mode=lambda: modes.of_mode,
        check=queries.pairs,
        most_clients=settings.http.max_stream_clients,
    )
    return ClusterParts(
        member=member,
        watch=watch,
        streamed=streamed,
        stream=stream,
        health=health,
        questions=Questions(
            prices=queries,
            stream=stream,
            health=health,
            measuring=NodeMeasuring(
                Measuring(health=health, share=figures, stream_clients=lambda: stream.clients),
                sight=sight,
                offset=offset,
                figures=figures,
                lags=watch.lags,
                held=lambda: [term.exchange for term in member.holdings.terms],
                redirects=outside.redirects,
            ),
            modes=modes,
        ),
    )
