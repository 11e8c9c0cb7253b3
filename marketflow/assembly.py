"""The composition root: every part is made here, from the settings and the outside world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import attrs

from marketflow import __version__
from marketflow.app.ingest.backoff import Backoff
from marketflow.app.ingest.feeds import Feed
from marketflow.app.ingest.modes import Modes
from marketflow.app.interface import Mode, Questions
from marketflow.app.knowledge import View
from marketflow.app.ports import AggregateStore, Entropy, Source, VenueSource
from marketflow.app.questions.candles import CandlePages
from marketflow.app.questions.newest import NewestUpdates
from marketflow.app.questions.past import PastUpdates
from marketflow.app.questions.queries import Queries
from marketflow.app.questions.spans import Spans
from marketflow.app.share.making import ShareOptions, make_share
from marketflow.app.share.share import Share
from marketflow.app.stream.subscriptions import PriceStream
from marketflow.app.watch.health import Health
from marketflow.app.watch.measuring import Measuring
from marketflow.config import Settings
from marketflow.outside import Outside

VENUE_IDLE_SECONDS: Final = 600.0
"""Longer than any silence that a venue's rules allow."""


@attrs.frozen
class Parts:
    """The parts that the task tree runs."""

    boot: str
    feeds: Mapping[Mode, Sequence[Feed]]
    share: Share
    modes: Modes
    stream: PriceStream
    health: Health
    questions: Questions
    store: AggregateStore


def assemble(settings: Settings, outside: Outside) -> Parts:
    """Make all parts. Nothing runs yet."""
    clock, window, store, sources = outside.clock, outside.window, outside.store, outside.sources
    exchanges = {mode: [source.exchange for source in each] for mode, each in sources.items()}
    names = [name for each in exchanges.values() for name in each]
    pairs = [(name, symbol) for name in names for symbol in settings.symbols]

    venues = {
        source.exchange: source
        for each in sources.values()
        for source in each
        if isinstance(source, VenueSource)
    }

    # ---- the way of an update ----
    share = make_share(
        boot=outside.boot,
        limits={
            name: settings.pipeline.max_pending_updates // len(each)
            for each in exchanges.values()
            for name in each
        },
        symbols=settings.symbols,
        generated=settings.generator.exchanges,
        numbered=[(name, symbol) for name, venue in venues.items() for symbol in venue.symbols],
        window=window,
        store=store,
        spool=outside.spool,
        clock=clock,
        options=share_options(settings),
    )
    book, view = share.book, View(share.bars, share.standing)
    feeds = {
        mode: [
            Feed(
                source,
                backoff=backoff_of(source, settings, outside.entropy),
                idle_timeout=idle_timeout_of(source, settings),
                last_well=partial(last_well_of, source, book.last_accepted),
            )
            for source in each
        ]
        for mode, each in sources.items()
    }

    # ---- questions ----
    modes = Modes(settings.mode)
    spans = Spans(
        views=view,
        window=window,
        store=store,
        interval=settings.aggregation.interval,
        window_length=settings.window.length,
        retention=settings.aggregation.retention,
    )
    queries = Queries(
        symbols=settings.symbols,
        exchanges=names,
        exchanges_of_mode=lambda: exchanges[modes.mode],
        newest=NewestUpdates(views=view, store=store),
        past=PastUpdates(spans),
        spans=spans,
        pages=CandlePages(spans, interval=settings.aggregation.interval, grace=settings.aggregation.grace),
        clock=clock,
    )
    stream = PriceStream(
        bars=share.bars,
        pairs=pairs,
        exchanges_of_mode=lambda: exchanges[modes.mode],
        check=queries.pairs,
        most_clients=settings.http.max_stream_clients,
    )
    health = Health(
        feeds=feeds,
        venues=venues,
        mode=lambda: modes.mode,
        share=share.figures,
        redis=share.redis,
        postgres=share.postgres,
        clock=clock,
        stale_after=settings.feeds.stale_after / 1_000,
        version=__version__,
    )
    return Parts(
        boot=outside.boot,
        feeds=feeds,
        share=share,
        modes=modes,
        stream=stream,
        health=health,
        questions=Questions(
            prices=queries,
            stream=stream,
            health=health,
            measuring=Measuring(
                health=health,
                share=share.figures,
                stream_clients=lambda: stream.clients,
            ),
            modes=modes,
        ),
        store=store,
    )


def backoff_of(source: Source[Any], settings: Settings, entropy: Entropy) -> Backoff:
    """The pauses before a source is run again: those of a venue's rules, or the configured ones."""
    if isinstance(source, VenueSource):
        least, most = source.pauses
        return Backoff(least, most, entropy, floor=least)
    return Backoff(settings.feeds.backoff_min / 1_000, settings.feeds.backoff_max / 1_000, entropy)


def idle_timeout_of(source: Source[Any], settings: Settings) -> float:
    """Seconds after which a feed gives up a silent connection. A venue does so before, by its own rule."""
    if isinstance(source, VenueSource):
        return VENUE_IDLE_SECONDS
    return settings.feeds.idle_timeout / 1_000


def last_well_of(source: Source[Any], last_accepted: Mapping[str, float]) -> float | None:
    """When an exchange was last well: an update was accepted, or a venue was well by its own rule.

    In seconds of Trio's clock; None if it never was. `last_accepted` has the exchanges' times of updates.
    """
    own = source.well_at if isinstance(source, VenueSource) else None
    times = (last_accepted.get(source.exchange), own)
    return max([time for time in times if time is not None], default=None)


def share_options(settings: Settings) -> ShareOptions:
    """The options of a share, from the settings."""
    return ShareOptions(
        interval=settings.aggregation.interval,
        grace=settings.aggregation.grace,
        lateness=settings.aggregation.lateness,
        retention=settings.aggregation.retention,
        window_length=settings.window.length,
        replay_memory=settings.window.replay_memory,
        flush_interval=settings.pipeline.flush_interval,
        patience=settings.redis.timeout,
    )
