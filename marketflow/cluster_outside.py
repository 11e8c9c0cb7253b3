"""The outside world of a node of a cluster. `outside.py` is that of a service that is alone on its stores."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

import attrs

from marketflow import __version__
from marketflow.adapters.cache.node import open_node_redis
from marketflow.adapters.cache.redirects import Address
from marketflow.adapters.db.cluster import ClusterDatabase
from marketflow.adapters.http.server import open_listener
from marketflow.adapters.state.spool import FileSpool, decode, encode
from marketflow.app.cluster.handed_spool import HandedSpool
from marketflow.app.interface import Mode
from marketflow.app.ports import (
    AggregateStore,
    Changes,
    Clock,
    Entropy,
    Leases,
    Node,
    RowReading,
    Scope,
    Source,
    Term,
    Window,
    WindowReading,
)
from marketflow.app.share.spooling import Spool
from marketflow.config import Settings
from marketflow.outside import Front, front_on, name_of
from marketflow.sources import sources_of

LEASE_PATIENCE: Final = 0.5
"""Of the time that a lease lasts, the part that a call about leases may take."""


@attrs.frozen
class ClusterOutside:
    """Everything that a node uses but does not create."""

    node: Node
    """It, as it tells of itself."""
    clock: Clock
    elapsed: Callable[[], float]
    """Seconds of a clock that never steps, and goes on while the machine is suspended."""
    entropy: Entropy
    leases: Leases
    reading: WindowReading
    changes: Changes
    redirects: Callable[[], Mapping[str, int]]
    """By kind of answer, how often a server of a Redis Cluster has sent this node elsewhere."""
    rows: RowReading
    window_of: Callable[[Term, Callable[[], bool]], AbstractAsyncContextManager[Window]]
    """The window of a term, and whether the database confirms it. Its connection is closed on leaving."""
    store_of: Callable[[Term], AggregateStore]
    spool_of: Callable[[Term], Spool]
    source_of: Callable[[str], Source[Any]]
    """A source of an exchange. Each term has its own."""
    exchanges: Mapping[str, Mode]
    """Those of both modes."""
    front: Front


@asynccontextmanager
async def real_cluster_outside(settings: Settings, clock: Clock) -> AsyncIterator[ClusterOutside]:
    """The outside world as configured; on leaving, the stores' connections are closed.

    Nothing is connected yet, but the port is taken.

    Raises:
        OSError: the service cannot listen, for example because the port is in use.
    """
    redis_url, dsn, cluster = settings.redis.effective_url, settings.postgres.effective_dsn, settings.cluster
    entropy = random.SystemRandom()
    exchanges: dict[str, Mode] = {each.name: "live" for each in settings.exchanges}
    exchanges |= dict.fromkeys(settings.generator.exchanges, "test")

    def source_of(exchange: str) -> Source[Any]:
        alone = attrs.evolve(
            settings,
            exchanges=tuple(each for each in settings.exchanges if each.name == exchange),
            generator=attrs.evolve(
                settings.generator,
                exchanges=tuple(each for each in settings.generator.exchanges if each == exchange),
            ),
        )
        (source,) = sources_of(alone, clock, entropy)[exchanges[exchange]]
        return source

    with open_listener(settings.http.host, settings.http.port) as listener:
        port = listener.getsockname()[1]
        async with (
            open_node_redis(
                redis_url,
                [address_of(each) for each in settings.redis.nodes],
                window_length=settings.window.length,
                timeout=settings.redis.timeout / 1_000,
            ) as redis,
            ClusterDatabase(
                dsn,
                interval=settings.aggregation.interval,
                timeout=settings.postgres.timeout / 1_000,
                lease_timeout=cluster.lease_ttl * LEASE_PATIENCE / 1_000,
                generated=settings.generator.exchanges,
            ) as postgres,
        ):
            yield ClusterOutside(
                node=Node(
                    name=cluster.node or f"{socket.gethostname()}:{port}",
                    boot=f"{entropy.getrandbits(32):08x}",
                    url=url_of(settings.http.host, port),
                    role=cluster.role,
                    version=__version__,
                ),
                clock=clock,
                elapsed=elapsed,
                entropy=entropy,
                leases=postgres.leases,
                reading=redis.reading,
                changes=redis.changes,
                redirects=lambda: redis.redirects,
                rows=postgres.rows,
                window_of=redis.window,
                store_of=postgres.store,
                spool_of=lambda term: HandedSpool(
                    term.exchange,
                    handed=postgres.spool(term, encode=encode, decode=decode),
                    disk=node_spool(settings, term.exchange),
                ),
                source_of=source_of,
                exchanges=exchanges,
                front=front_on(listener, settings),
            )


def node_spool(settings: Settings, exchange: str) -> FileSpool:
    """The spool of a node for an exchange."""
    stores = name_of(settings.redis.effective_url, settings.postgres.effective_dsn)
    return FileSpool(settings.state_dir, stores, scope=Scope(frozenset({exchange})))


def url_of(host: str, port: int) -> str:
    """Where a node that listens there answers: by the host's name, if it listens on all addresses."""
    if host in {"0.0.0.0", "::"}:
        host = socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def address_of(text: str) -> Address:
    """The address that a text like `host:port` names."""
    host, _, port = text.rpartition(":")
    return Address(host.strip("[]"), int(port))


def elapsed() -> float:
    """Seconds of the clock that goes on while the machine is suspended, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
