"""The composition root: every part is made here, from the settings, and given what it works with."""

from __future__ import annotations

import math
import secrets
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final
from urllib.parse import urlsplit

import attrs
from psycopg.conninfo import conninfo_to_dict

from marketflow import __version__
from marketflow.adapters.cache import address as redis_address
from marketflow.adapters.cache.redis import open_redis_window
from marketflow.adapters.db import address as postgres_address
from marketflow.adapters.db.postgres import PostgresStore
from marketflow.adapters.exchange.fair import COMMON_SEED, FairPrices
from marketflow.adapters.exchange.generator import GeneratorSource
from marketflow.adapters.exchange.tcp import TcpSource, receive_size
from marketflow.adapters.exchange.wire import Decoder
from marketflow.adapters.http.app import App, create_app
from marketflow.adapters.http.server import open_listener
from marketflow.adapters.state.spool import FileSpool
from marketflow.app.aggregating import Aggregator
from marketflow.app.book import Book
from marketflow.app.candles import CandlePages
from marketflow.app.clocks import Beat, CautiousClock, DataClock
from marketflow.app.feeds import Feed
from marketflow.app.flushing import Flusher
from marketflow.app.health import Health
from marketflow.app.measuring import Measuring
from marketflow.app.modes import Modes
from marketflow.app.ports import AggregateStore, Clock, Decode, Source, Window
from marketflow.app.queries import Queries
from marketflow.app.questions import Mode
from marketflow.app.spans import Spans
from marketflow.app.spooling import Spooling
from marketflow.app.stores import StoreState
from marketflow.app.streaming import PriceStream
from marketflow.config import Settings

MOST_PACE: Final = 0.0125
"""Seconds that what comes in little by little waits for more at most: a pause that nobody notices."""


@attrs.frozen
class Parts:
    """What the task tree runs."""

    boot: str
    listener: socket.socket
    feeds: Mapping[Mode, Sequence[Feed]]
    decode: Decode
    book: Book
    modes: Modes
    flusher: Flusher
    aggregator: Aggregator
    spooling: Spooling
    stream: PriceStream
    health: Health
    app: App
    store: AggregateStore


@asynccontextmanager
async def assembled(settings: Settings, clock: Clock, stores: str | None) -> AsyncIterator[Parts]:
    """All parts, and on leaving the stores' connections closed. Nothing runs yet, but the port is taken.

    Args:
        settings: all of them.
        clock: the wall clock.
        stores: a name for the stores that is the same from run to run; by default their addresses.

    Raises:
        OSError: the port is in use, and the like.
    """
    redis_url, dsn = settings.redis.effective_url, settings.postgres.effective_dsn
    boot = secrets.token_hex(4)
    with open_listener(settings.http.host, settings.http.port) as listener:
        async with (
            open_redis_window(
                redis_url,
                boot=boot,
                window_length=settings.window.length,
                timeout=settings.redis.timeout / 1_000,
            ) as window,
            PostgresStore(
                dsn, interval=settings.aggregation.interval, timeout=settings.postgres.timeout / 1_000
            ) as store,
        ):
            if stores is None:
                names = _name_of(redis_url, dsn), _earlier_name_of(redis_url, dsn)
            else:
                names = stores, stores
            spool = FileSpool(settings.state_dir, *names)
            yield _parts(settings, clock, boot, listener, window, store, spool)


def _name_of(redis_url: str, dsn: str) -> str:
    """The databases that the stores are: a new password makes no other stores."""
    return f"{redis_address.address_of(redis_url)} {postgres_address.address_of(dsn)}"


def _earlier_name_of(redis_url: str, dsn: str) -> str | None:
    """The name that version 0.1 gave to the same stores; None where it gave it to others as well."""
    if not (redis_address.is_written_out(redis_url) and postgres_address.is_written_out(dsn)):
        return None
    redis, postgres = urlsplit(redis_url), conninfo_to_dict(dsn)
    database = "{host}:{port}/{dbname}".format_map(dict.fromkeys(("host", "port", "dbname")) | postgres)
    return f"{redis.hostname}:{redis.port}{redis.path} {database}"


def _parts(
    settings: Settings,
    clock: Clock,
    boot: str,
    listener: socket.socket,
    window: Window,
    store: AggregateStore,
    spool: FileSpool,
) -> Parts:
    interval, grace = settings.aggregation.interval, settings.aggregation.grace
    redis_state, postgres_state = StoreState("redis"), StoreState("postgres")
    sources: Mapping[Mode, Sequence[Source]] = {
        "live": [
            TcpSource(each.name, each.host, each.port, receive_size(len(settings.symbols)))
            for each in settings.exchanges
        ],
        "test": [
            GeneratorSource(
                name, FairPrices(name, settings.symbols, COMMON_SEED), settings.generator.rate, clock
            )
            for name in settings.generator.exchanges
        ],
    }
    exchanges = {mode: [source.exchange for source in each] for mode, each in sources.items()}
    names = [name for each in exchanges.values() for name in each]
    pairs = [(name, symbol) for name in names for symbol in settings.symbols]

    # ---- the way of an update ----
    book = Book(
        boot=boot,
        limits={
            name: settings.pipeline.max_pending_updates // len(each)
            for each in exchanges.values()
            for name in each
        },
        window_length=settings.window.length,
        replay_memory=settings.window.replay_memory,
        interval=interval,
    )
    cautious_clock = CautiousClock(clock, doubt=settings.window.length)
    data_clock = DataClock(cautious_clock, book.bars.newest_times, generated=settings.generator.exchanges)
    flusher = Flusher(
        book=book,
        window=window,
        state=redis_state,
        clock=cautious_clock,
        data_clock=data_clock,
        pairs=pairs,
        flush_interval=settings.pipeline.flush_interval / 1_000,
        window_length=settings.window.length,
        patience=settings.redis.timeout / 1_000,
        granted=lambda: aggregator.holds,
    )
    aggregator = Aggregator(
        book=book,
        flusher=flusher,
        window=window,
        store=store,
        state=postgres_state,
        clock=clock,
        data_clock=data_clock,
        grace=grace,
        retention=settings.aggregation.retention,
    )
    beat = Beat(min(settings.pipeline.flush_interval / 4_000, MOST_PACE))
    feeds = {
        mode: [
            Feed(
                source,
                clock=clock,
                backoff_min=settings.feeds.backoff_min / 1_000,
                backoff_max=settings.feeds.backoff_max / 1_000,
                idle_timeout=settings.feeds.idle_timeout / 1_000,
                # What is generated comes a tick at a time, when it is due.
                beat=beat if mode == "live" else None,
                last_accepted=partial(book.last_accepted.get, source.exchange),
            )
            for source in each
        ]
        for mode, each in sources.items()
    }

    # ---- questions ----
    modes = Modes(settings.mode)
    spans = Spans(
        book=book,
        flusher=flusher,
        window=window,
        store=store,
        window_length=settings.window.length,
        retention=settings.aggregation.retention,
    )
    queries = Queries(
        symbols=settings.symbols,
        exchanges=names,
        exchanges_of_mode=lambda: exchanges[modes.mode],
        book=book,
        flusher=flusher,
        window=window,
        store=store,
        spans=spans,
        pages=CandlePages(spans, interval=interval, grace=grace),
        clock=clock,
    )
    stream = PriceStream(
        book=book,
        pairs=pairs,
        exchanges_of_mode=lambda: exchanges[modes.mode],
        check=queries.pairs,
        most_clients=settings.http.max_stream_clients,
    )
    health = Health(
        feeds=feeds,
        mode=lambda: modes.mode,
        book=book,
        redis=redis_state,
        postgres=postgres_state,
        clock=clock,
        stale_after=settings.feeds.stale_after / 1_000,
        version=__version__,
    )
    return Parts(
        boot=boot,
        listener=listener,
        feeds=feeds,
        decode=Decoder(frozenset(settings.symbols), interval, settings.aggregation.lateness),
        book=book,
        modes=modes,
        flusher=flusher,
        aggregator=aggregator,
        spooling=Spooling(
            book=book,
            flusher=flusher,
            spool=spool,
            data_clock=data_clock,
            clock=clock,
            held_until=lambda: min(
                (part.held_until for part in (flusher, aggregator) if part.another), default=math.inf
            ),
            lateness=settings.aggregation.lateness,
        ),
        stream=stream,
        health=health,
        app=create_app(
            prices=queries,
            stream=stream,
            health=health,
            measuring=Measuring(
                health=health, book=book, flusher=flusher, aggregator=aggregator, stream=stream
            ),
            modes=modes,
            token=settings.http.token,
            hosts=(settings.http.host, *settings.http.allowed_hosts),
            max_body_size=settings.http.max_body_size,
            stale_after=settings.feeds.stale_after,
        ),
        store=store,
    )
