"""The numbers of a share, read from its parts."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from marketflow.app.interface import Counters, WriterFigures
from marketflow.app.share.aggregating import Aggregator
from marketflow.app.share.book import Book
from marketflow.app.share.flushing import Flusher
from marketflow.app.share.ledger import Ledger


@attrs.frozen
class ShareFigures:
    """Implements the port Figures with the counters that each part of a share keeps of itself."""

    _book: Book
    _flusher: Flusher
    _aggregator: Aggregator

    def counters(self) -> Mapping[str, Counters]:
        """The counters of received lines, by exchange."""
        return {exchange: counters_of(ledger) for exchange, ledger in self._book.ledgers.items()}

    def total(self) -> Counters:
        """The sum of the counters over all exchanges."""
        total = Ledger()
        for ledger in self._book.ledgers.values():
            total.add(ledger)
        return counters_of(total)

    def last_accepted(self, exchange: str) -> float | None:
        """When its last update was accepted (seconds of Trio's clock); None before the first."""
        return self._book.last_accepted.get(exchange)

    def gaps(self) -> Mapping[str, int]:
        """By exchange how many trades have never come, where their ids tell."""
        return self._book.trades.missing()

    def writers(self) -> WriterFigures:
        """The numbers of the writers."""
        return WriterFigures(
            pending_limits=dict(self._book.buffers.limits),
            latency_seconds=self._book.flushes.latency.read(),
            flush_seconds=self._flusher.write_seconds.read(),
            volumes_ignored={name: ledger.volumes_ignored for name, ledger in self._book.ledgers.items()},
            aggregates_written=self._aggregator.written,
            aggregates_pending=self._aggregator.pending,
            aggregates_refused=self._aggregator.refused,
        )


def counters_of(ledger: Ledger) -> Counters:
    """What a ledger says, for those who ask."""
    return Counters(
        received=ledger.received,
        accepted=ledger.accepted,
        rejected=dict(ledger.rejected),
        cached=ledger.cached,
        expired=ledger.expired,
        dropped=dict(ledger.dropped),
        pending=ledger.pending,
    )
