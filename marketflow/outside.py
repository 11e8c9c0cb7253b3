"""The outside world of the service: the real stores, exchanges, port, clock and entropy, as configured.

`Outside` has everything that the service uses but does not create. The simulation provides another one; the
rest of the service is the same.
"""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import attrs
import trio
from psycopg.conninfo import conninfo_to_dict

from marketflow.adapters.cache import address as redis_address
from marketflow.adapters.cache.redis import open_redis_window
from marketflow.adapters.db import address as postgres_address
from marketflow.adapters.db.postgres import PostgresStore
from marketflow.adapters.http.app import create_app
from marketflow.adapters.http.exposure import warn_while_exposed
from marketflow.adapters.http.server import Limits, open_listener, serve_http
from marketflow.adapters.state.spool import FileSpool
from marketflow.app.interface import Mode, Questions
from marketflow.app.ports import AggregateStore, Clock, Entropy, Source, Window
from marketflow.app.share.spooling import Spool
from marketflow.config import Settings
from marketflow.sources import sources_of

HTTP_GRACE: Final = 2.0
"""Seconds that running requests have to finish at a stop."""


class Front(Protocol):
    """Serves the questions of clients, as the HTTP server does."""

    async def __call__(
        self, questions: Questions, stopping: trio.Event, *, task_status: trio.TaskStatus[str]
    ) -> None:
        """Serve until `stopping` is set. Started, with its URL, once it listens."""
        ...


@attrs.frozen
class Outside:
    """Everything that the service uses but does not create."""

    boot: str
    """Unique id of this run."""
    clock: Clock
    entropy: Entropy
    window: Window
    store: AggregateStore
    spool: Spool
    sources: Mapping[Mode, Sequence[Source[Any]]]
    front: Front


@asynccontextmanager
async def real_outside(settings: Settings, clock: Clock, stores: str | None) -> AsyncIterator[Outside]:
    """The outside world as configured; on leaving, the stores' connections are closed.

    Nothing is connected yet, but the port is taken.

    Args:
        settings: all of them.
        clock: the wall clock.
        stores: a name for the stores that is the same from run to run; by default their addresses.

    Raises:
        OSError: the service cannot listen, for example because the port is in use.
    """
    redis_url, dsn = settings.redis.effective_url, settings.postgres.effective_dsn
    entropy = random.SystemRandom()
    boot = f"{entropy.getrandbits(32):08x}"
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
            yield Outside(
                boot=boot,
                clock=clock,
                entropy=entropy,
                window=window,
                store=store,
                spool=single_spool(settings, redis_url)
                if stores is None
                else FileSpool(settings.state_dir, stores, stores),
                sources=sources_of(settings, clock, entropy),
                front=front_on(listener, settings),
            )


def front_on(listener: socket.socket, settings: Settings) -> Front:
    """The HTTP server on a port that was taken already."""

    async def front(questions: Questions, stopping: trio.Event, *, task_status: trio.TaskStatus[str]) -> None:
        async with trio.open_nursery() as nursery:
            url = await nursery.start(
                partial(
                    serve_http,
                    create_app(
                        questions,
                        token=settings.http.token,
                        hosts=(settings.http.host, *settings.http.allowed_hosts),
                        origins=settings.http.cors_origins,
                        max_body_size=settings.http.max_body_size,
                        stale_after=settings.feeds.stale_after,
                    ),
                    listener,
                    shutdown=stopping.wait,
                    graceful_timeout=HTTP_GRACE,
                    limits=Limits(settings.http.max_connections, settings.http.max_head_size),
                )
            )
            nursery.start_soon(partial(warn_while_exposed, listener, settings.http.token, stopping=stopping))
            task_status.started(url)

    return front


def single_spool(settings: Settings, redis_url: str) -> FileSpool:
    """The spool of a single service with this Redis and the configured database."""
    dsn = settings.postgres.effective_dsn
    return FileSpool(settings.state_dir, name_of(redis_url, dsn), _earlier_name_of(redis_url, dsn))


def name_of(redis_url: str, dsn: str) -> str:
    """The identity of the stores' databases; it does not depend on passwords."""
    return f"{redis_address.address_of(redis_url)} {postgres_address.address_of(dsn)}"


def _earlier_name_of(redis_url: str, dsn: str) -> str | None:
    """The name that version 0.1 gave to the same stores; None if other stores may have had it, too."""
    if not (redis_address.is_written_out(redis_url) and postgres_address.is_written_out(dsn)):
        return None
    redis, postgres = urlsplit(redis_url), conninfo_to_dict(dsn)
    database = "{host}:{port}/{dbname}".format_map(dict.fromkeys(("host", "port", "dbname")) | postgres)
    return f"{redis.hostname}:{redis.port}{redis.path} {database}"
