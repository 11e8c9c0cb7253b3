"""Collects the counters of all parts."""

from __future__ import annotations

from marketflow.app.interface import Measurements
from marketflow.app.share.aggregating import Aggregator
from marketflow.app.share.book import Book
from marketflow.app.share.flushing import Flusher
from marketflow.app.stream.subscriptions import PriceStream
from marketflow.app.watch.health import Health


class Measuring:
    """Reads the parts' counters, at once and without any calls."""

    def __init__(
        self, *, health: Health, book: Book, flusher: Flusher, aggregator: Aggregator, stream: PriceStream
    ) -> None:
        self._health = health
        self._book = book
        self._flusher = flusher
        self._aggregator = aggregator
        self._stream = stream

    def measurements(self) -> Measurements:
        """All counters, read without an await, so that they add up."""
        return Measurements(
            health=self._health.report(),
            ready=self._health.ready,
            pending_limits=dict(self._book.buffers.limits),
            latency_seconds=self._book.flushes.latency.read(),
            flush_seconds=self._flusher.write_seconds.read(),
            aggregates_written=self._aggregator.written,
            aggregates_pending=self._aggregator.pending,
            aggregates_refused=self._aggregator.refused,
            feed_bugs=self._health.feed_bugs(),
            stream_clients=self._stream.clients,
        )
