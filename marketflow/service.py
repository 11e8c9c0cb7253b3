"""The composition root: every part is made here, and the task tree runs from top to bottom on this page.

```
 run_service
 ├─ signals                        first: stop in order; second: leave at once
 └─ serve                          one nursery owns all that follows
    ├─ http                        ends with the stop
    ├─ modes ─ sources of the mode ─ feed, 5 workers, fan-in for each exchange
    │                              end from the sources down; the book has then ended
    ├─ flusher                     ends because the book has ended
    ├─ aggregator                  ends because the flusher has
    └─ spooling                    the same; what no store has taken is saved last
```
"""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial

import attrs
import structlog
import trio
from trio_util import move_on_when

from marketflow import __version__
from marketflow.adapters.cache.redis import open_redis_window
from marketflow.adapters.db.postgres import PostgresStore
from marketflow.adapters.exchange.generator import GeneratorSource
from marketflow.adapters.exchange.tcp import TcpSource
from marketflow.adapters.exchange.wire import Decoder
from marketflow.adapters.http.app import create_app
from marketflow.adapters.http.server import open_listener, serve_http
from marketflow.adapters.state.spool import FileSpool
from marketflow.app.aggregating import Aggregator
from marketflow.app.book import Book
from marketflow.app.candles import CandlePages
from marketflow.app.clocks import CautiousClock, SystemClock
from marketflow.app.feeds import Feed
from marketflow.app.flushing import Flusher
from marketflow.app.health import Health
from marketflow.app.modes import Modes
from marketflow.app.ports import AggregateStore, Clock, Source
from marketflow.app.queries import Queries
from marketflow.app.questions import HealthReport, Mode
from marketflow.app.spans import Spans
from marketflow.app.spooling import Spooling
from marketflow.app.stores import StoreState
from marketflow.app.workers import run_pool
from marketflow.config import Settings
from marketflow.embedded import EmbeddedPostgres, EmbeddedRedis

log = structlog.get_logger()

HTTP_GRACE = 2.0
"""Seconds that running requests have to come to their end at a stop."""


@attrs.frozen
class Running:
    """A service that has started."""

    url: str
    report: Callable[[], HealthReport]
    store: AggregateStore


async def run_service(settings: Settings, *, embedded: bool = False) -> None:
    """Run the service until SIGINT or SIGTERM; with `embedded`, on a Redis and a PostgreSQL of its own.

    Raises:
        OSError: the port is in use, and the like.
        EmbeddedError: an embedded server could not be started.
        StoreTaken: another service is running on the same stores.
        IntervalMismatch: the database holds aggregates of another interval.
    """
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(stop_on_signal, stopping)
        if embedded:
            directory = settings.state_dir / "embedded"
            with (
                EmbeddedRedis(directory / "redis") as redis,
                EmbeddedPostgres(directory / "postgres") as postgres,
            ):
                await serve(at_stores(settings, redis.url, postgres.dsn), stopping, stores="embedded")
        else:
            await serve(settings, stopping)
        nursery.cancel_scope.cancel()


def at_stores(settings: Settings, redis_url: str, dsn: str) -> Settings:
    """The settings with other stores."""
    return attrs.evolve(
        settings,
        redis=attrs.evolve(settings.redis, url=redis_url),
        postgres=attrs.evolve(settings.postgres, dsn=dsn),
    )


async def stop_on_signal(
    stopping: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Set `stopping` at the first signal; at the second leave at once, whatever hangs."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            if stopping.is_set():
                log.warning("leaving at once", signal=signal.Signals(number).name)
                os._exit(1)
            log.info("stopping", signal=signal.Signals(number).name)
            stopping.set()


async def serve(
    settings: Settings,
    stopping: trio.Event,
    *,
    stores: str | None = None,
    clock: Clock | None = None,
    task_status: trio.TaskStatus[Running] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the service until `stopping` is set and everything received has found its place.

    Args:
        settings: all of them.
        stopping: set from outside.
        stores: a name for the stores that is the same from run to run; by default their addresses.
        clock: the wall clock.

    Raises:
        As run_service.
    """
    clock = clock or SystemClock()
    interval = settings.aggregation.interval
    window_length = settings.window.length
    boot, started_at = secrets.token_hex(4), clock.now()
    redis, postgres = settings.redis.effective_url, settings.postgres.effective_dsn
    modes_of: dict[Mode, list[Source]] = {
        "live": live_sources(settings),
        "test": test_sources(settings, clock),
    }
    exchanges = [source.exchange for sources in modes_of.values() for source in sources]
    pairs = [(exchange, symbol) for exchange in exchanges for symbol in settings.symbols]

    async with AsyncExitStack() as stack:
        # ---- the outside world ----
        listener = stack.enter_context(open_listener(settings.http.host, settings.http.port))
        window = await stack.enter_async_context(
            open_redis_window(
                redis, boot=boot, window_length=window_length, timeout=settings.redis.timeout / 1_000
            )
        )
        store = await stack.enter_async_context(
            PostgresStore(postgres, interval=interval, timeout=settings.postgres.timeout / 1_000)
        )
        redis_state, postgres_state = StoreState("redis"), StoreState("postgres")

        # ---- the way of an update ----
        book = Book(
            boot=boot,
            first_sequence=started_at * 1_000,
            limits={
                source.exchange: settings.pipeline.max_pending_updates // len(sources)
                for sources in modes_of.values()
                for source in sources
            },
            window_length=window_length,
            replay_memory=settings.window.replay_memory,
            interval=interval,
        )
        decode = Decoder(frozenset(settings.symbols), interval, settings.aggregation.lateness)
        feeds: dict[Mode, list[Feed]] = {
            mode: [
                Feed(
                    source,
                    clock=clock,
                    backoff_min=settings.feeds.backoff_min / 1_000,
                    backoff_max=settings.feeds.backoff_max / 1_000,
                    idle_timeout=settings.feeds.idle_timeout / 1_000,
                    last_accepted=partial(book.last_accepted.get, source.exchange),
                )
                for source in sources
            ]
            for mode, sources in modes_of.items()
        }

        async def run_sources(mode: Mode, leave: trio.Event) -> None:
            async with trio.open_nursery() as nursery:
                for feed in feeds[mode]:
                    nursery.start_soon(
                        partial(
                            run_pool,
                            partial(feed.run, stopping=leave),
                            decode=decode,
                            enter=book.enter,
                            workers=settings.pipeline.workers_per_exchange,
                        )
                    )

        modes = Modes(settings.mode, run_sources=run_sources)
        flusher = Flusher(
            book=book,
            window=window,
            state=redis_state,
            clock=CautiousClock(clock),
            pairs=pairs,
            flush_interval=settings.pipeline.flush_interval / 1_000,
            window_length=window_length,
            patience=settings.redis.timeout / 1_000,
        )
        aggregator = Aggregator(
            book=book,
            flusher=flusher,
            window=window,
            store=store,
            state=postgres_state,
            clock=clock,
            started_at=started_at,
            grace=settings.aggregation.grace,
            retention=settings.aggregation.retention,
        )
        spool = FileSpool(settings.state_dir, stores or f"{redis} {postgres}")
        spooling = Spooling(book=book, flusher=flusher, spool=spool)

        # ---- questions ----
        spans = Spans(
            book=book,
            flusher=flusher,
            window=window,
            store=store,
            window_length=window_length,
            started_at=started_at,
        )
        queries = Queries(
            symbols=settings.symbols,
            exchanges=exchanges,
            exchanges_of_mode=lambda: [source.exchange for source in modes_of[modes.mode]],
            book=book,
            flusher=flusher,
            window=window,
            store=store,
            spans=spans,
            pages=CandlePages(spans, interval=interval, grace=settings.aggregation.grace),
            clock=clock,
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
        app = create_app(prices=queries, health=health, modes=modes, token=settings.http.token)

        async def run_modes() -> None:
            await modes.run(stopping)
            book.end()

        # ---- the task tree ----
        try:
            async with trio.open_nursery() as nursery:
                url = await nursery.start(
                    partial(serve_http, app, listener, shutdown=stopping.wait, graceful_timeout=HTTP_GRACE)
                )
                async with move_on_when(stopping.wait):
                    await aggregator.take_hold()
                await spooling.bring_in()
                nursery.start_soon(run_modes)
                nursery.start_soon(flusher.run)
                nursery.start_soon(aggregator.run)
                nursery.start_soon(spooling.settle)
                health.serving = True
                log.info("serving", url=url, boot=boot, mode=modes.mode)
                task_status.started(Running(url, health.report, store))

                await stopping.wait()
                health.serving = False
                nursery.cancel_scope.deadline = trio.current_time() + settings.shutdown_timeout / 1_000
            if nursery.cancel_scope.cancelled_caught:
                log.error("the stop took too long", limit_seconds=settings.shutdown_timeout / 1_000)
        finally:
            book.drop_pending()
            with trio.CancelScope(shield=True):  # bounded by the spool itself
                await spooling.save()
            log.info("stopped", **attrs.asdict(health.report().updates))


def live_sources(settings: Settings) -> list[Source]:
    """The configured exchanges."""
    return [TcpSource(each.name, each.host, each.port) for each in settings.exchanges]


def test_sources(settings: Settings, clock: Clock) -> list[Source]:
    """Generators under names of their own: modes do not mix."""
    return [
        GeneratorSource(name, settings.symbols, settings.generator.rate, clock)
        for name in settings.generator.exchanges
    ]
