"""Measurements as Prometheus' metric families. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Final, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from marketflow.app.instruments.histogram import Distribution
from marketflow.app.interface import (
    ClusterFigures,
    Counters,
    ExchangeHealth,
    ExchangeStatus,
    Measurements,
    Mode,
)
from marketflow.app.share.ledger import FENCED, OVERFLOW, SHUTDOWN
from marketflow.domain.prices import REASONS

EXCHANGE: Final = "exchange"
REASON: Final = "reason"

# For each counter its name, help text, and value. Together they are the equations of the ledger:
# received = accepted + rejected, accepted = cached + expired + dropped + pending.
_COUNTS: Final[tuple[tuple[str, str, Callable[[Counters], int]], ...]] = (
    ("received", "Lines received, except for blank ones.", lambda counters: counters.received),
    ("accepted", "Updates accepted.", lambda counters: counters.accepted),
    ("cached", "Updates that Redis has acknowledged.", lambda counters: counters.cached),
    (
        "expired",
        "Updates that left the window before they could be written to it. Aggregates count them.",
        lambda counters: counters.expired,
    ),
)
# The same, by reason. All reasons are present from the start: Prometheus needs a first value for a rate.
_LOSSES: Final[tuple[tuple[str, str, tuple[str, ...], Callable[[Counters], Mapping[str, int]]], ...]] = (
    ("rejected", "Lines rejected.", REASONS, lambda counters: counters.rejected),
    (
        "dropped",
        "Updates dropped: too many waited for Redis, or it was away at a stop. Aggregates count them.",
        (OVERFLOW, SHUTDOWN),
        lambda counters: counters.dropped,
    ),
)


def families_of(found: Measurements) -> Iterable[Metric]:
    """All families, in a fixed order."""
    report = found.health
    yield _gauge("marketflow_build_info", "The running version.", "version", {report.version: 1})
    yield _gauge("marketflow_mode", "1 for the current mode.", "mode", _one_of(Mode, report.mode))
    yield GaugeMetricFamily("marketflow_ready", "1 unless it is starting or stopping.", int(found.ready))
    stores = {"redis": report.redis, "postgres": report.postgres}
    yield _gauge(
        "marketflow_up",
        "1 while a store answers.",
        "component",
        {name: int(store.status == "up") for name, store in stores.items()},
    )
    yield from _update_families(
        {name: each.updates for name, each in report.exchanges.items()}, fences=found.cluster is not None
    )
    yield _gauge(
        "marketflow_updates_pending_limit",
        "The limit of pending updates: at it the exchange waits or, with Redis away, the oldest are dropped.",
        EXCHANGE,
        found.pending_limits,
    )
    yield _counter(
        "marketflow_volume_ignored",
        "Updates accepted without the volume that their line told, since it cannot be one.",
        EXCHANGE,
        found.volumes_ignored,
    )
    yield from _feed_families(report.exchanges)
    yield _counter(
        "marketflow_feed_bugs",
        "Bugs of the code that reads an exchange. Each cost a connection, lines (malformed), or a slow stop.",
        EXCHANGE,
        found.feed_bugs,
    )
    yield _histogram(
        "marketflow_flush_seconds",
        "Time of each write to Redis until it was acknowledged, including writes without updates.",
        found.flush_seconds,
    )
    yield _histogram(
        "marketflow_update_latency_seconds",
        "Time of each cached update from its receipt until Redis acknowledged it.",
        found.latency_seconds,
    )
    yield CounterMetricFamily(
        "marketflow_aggregates_written", "Rows written to PostgreSQL.", found.aggregates_written
    )
    yield GaugeMetricFamily(
        "marketflow_aggregates_pending",
        "Rows of closed intervals that are not up to date in PostgreSQL.",
        found.aggregates_pending,
    )
    yield GaugeMetricFamily(
        "marketflow_aggregates_refused",
        "Pending rows that PostgreSQL refuses although it answers.",
        found.aggregates_refused,
    )
    yield GaugeMetricFamily("marketflow_stream_clients", "Clients of the live stream.", found.stream_clients)
    if found.cluster is not None:
        yield from _cluster_families(found.cluster)


def _cluster_families(cluster: ClusterFigures) -> Iterable[Metric]:
    """Only of a node in a cluster."""
    yield _gauge(
        "marketflow_lease_held",
        "1 if this node has the exchange.",
        EXCHANGE,
        {exchange: int(held) for exchange, held in cluster.held.items()},
    )
    yield _gauge(
        "marketflow_lease_epoch",
        "How often the exchange was taken, by any node.",
        EXCHANGE,
        cluster.epochs,
    )
    yield _counter(
        "marketflow_takeovers",
        "Exchanges that this node has taken, by what has made them free.",
        REASON,
        cluster.takeovers,
    )
    yield _counter(
        "marketflow_fenced",
        "Exchanges that this node has lost, by the store that has shown it.",
        "store",
        cluster.fenced,
    )
    yield _counter(
        "marketflow_cluster_redirects",
        "How often a server of a Redis Cluster has sent this node elsewhere, by its answer.",
        "answer",
        cluster.redirects,
    )
    yield _gauge(
        "marketflow_mirror_lag_seconds",
        "Time since this node's copy of the exchange's bars was up to date.",
        EXCHANGE,
        cluster.mirror_lag,
    )
    # NaN before it was measured: 0 would be wrong.
    yield GaugeMetricFamily(
        "marketflow_clock_offset_seconds",
        "How far PostgreSQL's clock is ahead of this node's, at least.",
        math.nan if cluster.clock_offset is None else cluster.clock_offset,
    )


def _update_families(ledgers: Mapping[str, Counters], *, fences: bool) -> Iterable[Metric]:
    for name, text, count in _COUNTS:
        counts = {exchange: count(counters) for exchange, counters in ledgers.items()}
        yield _counter(f"marketflow_updates_{name}", text, EXCHANGE, counts)
    for name, text, of_all, by_reason in _LOSSES:
        reasons = (*of_all, FENCED) if name == "dropped" and fences else of_all
        family = CounterMetricFamily(f"marketflow_updates_{name}", text, labels=[EXCHANGE, REASON])
        for exchange, counters in ledgers.items():
            for reason, lost in (dict.fromkeys(reasons, 0) | dict(by_reason(counters))).items():
                family.add_metric([exchange, reason], lost)
        yield family
    pending = {exchange: counters.pending for exchange, counters in ledgers.items()}
    yield _gauge("marketflow_updates_pending", "Updates not in Redis yet.", EXCHANGE, pending)


def _feed_families(exchanges: Mapping[str, ExchangeHealth]) -> Iterable[Metric]:
    yield _gauge(
        "marketflow_feed_connected",
        "1 while the exchange is connected; exchanges of the other mode are not.",
        EXCHANGE,
        {name: int(each.status in {"connected", "stale"}) for name, each in exchanges.items()},
    )
    statuses = GaugeMetricFamily(
        "marketflow_feed_status", "1 for the exchange's current status.", labels=[EXCHANGE, "status"]
    )
    for name, each in exchanges.items():
        for status, is_it in _one_of(ExchangeStatus, each.status).items():
            statuses.add_metric([name, status], is_it)
    yield statuses
    yield _counter(
        "marketflow_feed_reconnects",
        "Connections made after an earlier one had ended.",
        EXCHANGE,
        {name: each.reconnects for name, each in exchanges.items()},
    )
    yield _gauge(
        "marketflow_feed_symbols_rejected",
        "Symbols that the exchange has refused to send.",
        EXCHANGE,
        {name: len(each.rejected_symbols) for name, each in exchanges.items()},
    )
    yield _counter(
        "marketflow_feed_gaps",
        "Trades that have never come, where the exchange numbers them without gaps.",
        EXCHANGE,
        {name: each.gaps for name, each in exchanges.items()},
    )
    # NaN before the first update: 0 would be wrong, and alerts cannot be written for a missing series.
    yield _gauge(
        "marketflow_feed_last_update_age_seconds",
        "Time since the last update was accepted, NaN before the first.",
        EXCHANGE,
        {
            name: math.nan if each.last_update_age is None else each.last_update_age
            for name, each in exchanges.items()
        },
    )


def _one_of(kinds: object, value: str) -> dict[str, int]:
    """For each value of a Literal: whether it is the current one."""
    return {kind: int(kind == value) for kind in get_args(kinds)}


def _counter(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _histogram(name: str, text: str, found: Distribution) -> Metric:
    return HistogramMetricFamily(name, text, buckets=buckets_of(found), sum_value=found.sum)


def buckets_of(found: Distribution) -> list[tuple[str, float]]:
    """The buckets with their bounds as Prometheus writes them."""
    return [("+Inf" if math.isinf(bound) else str(bound), count) for bound, count in found.buckets]
