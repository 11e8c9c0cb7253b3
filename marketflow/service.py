"""The service as a task tree, from top to bottom. The parts are made in assembly.py.

```
 run_service
 ├─ stop_on_signal                 first signal: stop in order; second: leave at once
 ├─ running                        the embedded servers, if wanted
 └─ serve                          one nursery owns all that follows
    ├─ front                       the HTTP server; ends with the stop
    ├─ run_modes                   the sources of one mode at a time
    │  └─ run_sources
    │     └─ run_pool, for each exchange
    │        ├─ feed, its source   end with the stop, or the switch
    │        └─ worker x5          end when the feed has ended; all updates are in the book
    ├─ stream                      ends with the stop
    ├─ limit_stop                  waits for the stop, and limits its time
    └─ share
       ├─ flusher                  ends when no update can enter any more
       ├─ aggregator               ends when the flusher has ended
       ├─ spooling                 the same; saves at the very end what no store has taken
       └─ packing                  ends with the others
```
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Final, TypeVar

import attrs
import structlog
import trio
from trio_util import move_on_when

from marketflow import logs
from marketflow.app.ingest.workers import run_pool
from marketflow.app.instruments.clocks import SystemClock
from marketflow.app.interface import HealthReport, Mode
from marketflow.app.ports import AggregateStore, Clock
from marketflow.app.share.spooling import BarsLost
from marketflow.assembly import Parts, assemble
from marketflow.config import Settings
from marketflow.embedded import EmbeddedPostgres, EmbeddedRedis
from marketflow.outside import Outside, real_outside
from marketflow.signals import ALWAYS, stop_signals

log = structlog.get_logger()
Server = TypeVar("Server", EmbeddedRedis, EmbeddedPostgres)

ECHO_SECONDS: Final = 0.1
"""Seconds after the first signal in which the same signal does not count as a second one: some senders signal
a process and also its group. After a SIGHUP no signal counts as a second one in this time."""

SPOOL_GRACE: Final = 2.0
"""Seconds of `shutdown_timeout` that are reserved for the spool, if the stages before it take too long."""

CLOSE_GRACE: Final = 1.0
"""Seconds of it that are reserved for the end, after the spool: to release the lock and close connections."""

SPOOL_LEAST: Final = 1.0
"""Seconds that the spool has in any case; with a very short `shutdown_timeout` the stop takes longer."""

REVIVE_SECONDS: Final = 2.0
"""Seconds between two checks whether the embedded servers run."""


@attrs.frozen
class Running:
    """A service that has started."""

    url: str
    report: Callable[[], HealthReport]
    store: AggregateStore


async def run_service(settings: Settings, *, embedded: bool = False) -> None:
    """Run the service until a signal stops it; with `embedded`, on a Redis and a PostgreSQL of its own.

    Raises:
        EmbeddedError: an embedded server could not be started.
        OSError, StoreTaken, IntervalMismatch, TimeoutError, BarsLost: as `serve`.
    """
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(stop_on_signal, stopping)
        if embedded:
            directory = settings.state_dir / "embedded"
            async with (
                running(EmbeddedRedis(directory / "redis")) as redis,
                running(EmbeddedPostgres(directory / "postgres")) as postgres,
            ):
                await serve(at_stores(settings, redis.url, postgres.dsn), stopping, stores="embedded")
        else:
            await serve(settings, stopping)
        nursery.cancel_scope.cancel()


async def stop_on_signal(
    stopping: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Set `stopping` at the first signal; at a second SIGINT or SIGTERM leave at once, even from a hang.

    A SIGHUP is never that second signal: systemd and closing terminals send it together with another one.
    """
    with trio.open_signal_receiver(*stop_signals()) as signals:
        task_status.started()
        first = (0, -math.inf)
        async for number in signals:
            if not stopping.is_set():
                log.info("stopping", signal=signal.Signals(number).name)
                first = (number, trio.current_time())
                stopping.set()
            elif number in ALWAYS and not _is_echo(number, *first):
                log.warning("leaving at once", signal=signal.Signals(number).name)
                logs.flush()
                os._exit(1)


def _is_echo(number: int, first: int, at: float) -> bool:
    """Whether a signal is an echo of the first one, which arrived at time `at`."""
    return first in {number, signal.SIGHUP} and trio.current_time() <= at + ECHO_SECONDS


@asynccontextmanager
async def running(server: Server) -> AsyncIterator[Server]:
    """Run an embedded server during the block, and start it again if it ends by itself."""
    # A start takes about a second; the first start of PostgreSQL creates a database and takes longer.
    log.info("starting embedded server", server=server.name, first_start=not server.directory.exists())
    server.start()  # on the main thread, see there
    log.info("embedded server runs", server=server.name, pid=server.pid, at=server.address)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_running, server)
            yield server
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):  # bounded; in a thread, so that a second signal is heard
            await trio.to_thread.run_sync(server.stop)


async def keep_running(server: EmbeddedRedis | EmbeddedPostgres) -> None:
    """Start an embedded server again whenever it has ended by itself, until cancelled."""
    while True:
        await trio.sleep(REVIVE_SECONDS)
        try:
            if server.revive():
                log.warning("embedded server restarted", server=server.name, pid=server.pid)
        except OSError as error:
            log.warning("embedded server not restarted", server=server.name, error=str(error))


async def serve(
    settings: Settings,
    stopping: trio.Event,
    *,
    stores: str | None = None,
    clock: Clock | None = None,
    outside: AbstractAsyncContextManager[Outside] | None = None,
    task_status: trio.TaskStatus[Running] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the service until `stopping` is set and everything received is stored.

    Args:
        settings: all of them.
        stopping: set by the caller to stop the service.
        stores: a name for the stores that is the same from run to run; by default their addresses.
        clock: the wall clock; the system's by default.
        outside: the outside world; by default the real stores, exchanges and port of the settings.
        task_status: reports the start, once questions are answered and the sources have been started.

    Raises:
        OSError: the service cannot listen, for example because the port is in use.
        TimeoutError: the stop took longer than `shutdown_timeout`.
        BarsLost: bars that no store has taken could not be spooled.
        StoreTaken: another service is running on the same stores.
        IntervalMismatch: the database holds aggregates of another interval.
    """
    async with outside or real_outside(settings, clock or SystemClock(), stores) as surroundings:
        parts = assemble(settings, surroundings)
        time = StopTime(settings.shutdown_timeout / 1_000)
        async with spooling_at_the_end(parts, time):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(limit_stop, stopping, time, nursery.cancel_scope)
                url = await nursery.start(surroundings.front, parts.questions, stopping)
                async with move_on_when(stopping.wait):
                    await parts.share.lease()
                # On its own: the book begins also if a stop has ended the wait for the lease.
                async with move_on_when(stopping.wait):
                    await parts.share.begin(surroundings.clock.now())
                nursery.start_soon(run_modes, parts, settings.pipeline.workers_per_exchange, stopping)
                nursery.start_soon(parts.stream.run, stopping)
                nursery.start_soon(parts.share.run)
                parts.health.serving = True
                log.info("serving", url=url, boot=parts.boot, mode=parts.modes.mode)
                task_status.started(Running(url, parts.health.report, parts.store))

                await stopping.wait()
                parts.health.serving = False
            if nursery.cancel_scope.cancelled_caught:
                raise TimeoutError("the stop took too long and was cut short, see the log")


async def limit_stop(stopping: trio.Event, time: StopTime, stages: trio.CancelScope) -> None:
    """Once the stop comes, limit the time of the stages before the spool. It may come during the start."""
    await stopping.wait()
    time.begin()
    stages.deadline = time.stages_end


class StopTime:
    """Divides the time for a stop, `shutdown_timeout`, among its stages."""

    def __init__(self, limit: float) -> None:
        """The limit in seconds."""
        self._limit = limit
        self._end = math.inf

    def begin(self) -> None:
        """Start the clock: the stop begins now."""
        self._end = trio.current_time() + self._limit

    @property
    def stages_end(self) -> float:
        """The time (Trio's clock) by which all stages before the spool must have ended."""
        return self._end - min(SPOOL_GRACE + CLOSE_GRACE, self._limit / 2)

    @property
    def for_the_spool(self) -> float:
        """Seconds that the spool may take from now on; if no orderly stop has begun, the reserved ones."""
        end = self._end - min(CLOSE_GRACE, self._limit / 4)
        return max(SPOOL_LEAST, SPOOL_GRACE if end == math.inf else end - trio.current_time())


@asynccontextmanager
async def spooling_at_the_end(parts: Parts, time: StopTime) -> AsyncIterator[None]:
    """At the end of the block, however it ends, spool the bars that no store has taken.

    Raises:
        BarsLost: that failed; in a group with the error that ended the block, if there is one.
    """
    errors: list[BaseException] = []
    try:
        yield
    except BaseException as error:  # noqa: BLE001 - raised below
        errors.append(error)
    try:
        with trio.CancelScope(shield=True):  # `save` has a time limit
            await parts.share.save(time.for_the_spool)
    except BarsLost as error:
        errors.append(error)
    log.info("stopped", **attrs.asdict(parts.health.report().updates))
    if len(errors) > 1:
        raise BaseExceptionGroup("the stop failed", errors)
    if errors:
        raise errors[0]


async def run_modes(parts: Parts, workers: int, stopping: trio.Event) -> None:
    """Run the sources of one mode after the other. After this no update can enter any more."""

    async def run_sources(mode: Mode, leave: trio.Event) -> None:
        async with trio.open_nursery() as nursery:
            for feed in parts.feeds[mode]:
                nursery.start_soon(
                    partial(
                        run_pool,
                        partial(feed.run, stopping=leave),
                        decode=feed.decode,
                        enter=parts.share.book.enter,
                        workers=workers,
                        first=feed.next_chunk,
                    )
                )

    await parts.modes.run(run_sources, stopping)
    parts.share.end()


def at_stores(settings: Settings, redis_url: str, dsn: str) -> Settings:
    """The settings with other stores."""
    return attrs.evolve(
        settings,
        redis=attrs.evolve(settings.redis, url=redis_url),
        postgres=attrs.evolve(settings.postgres, dsn=dsn),
    )
