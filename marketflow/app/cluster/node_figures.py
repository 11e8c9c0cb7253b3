"""The numbers of a node: of the shares that it has, and of those that it has had since its start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import attrs

from marketflow.app.instruments.histogram import Histogram
from marketflow.app.interface import Counters, WriterFigures
from marketflow.app.share.figures import counters_of
from marketflow.app.share.ledger import Ledger
from marketflow.app.share.share import Share


class NodeFigures:
    """Fills the port Figures. Counters never decrease when an exchange goes to another node."""

    def __init__(self, exchanges: Collection[str]) -> None:
        """`exchanges`: all that the node may have."""
        self._ended = {exchange: Ledger() for exchange in exchanges}
        """What became of updates in shares that have ended."""
        self._gaps: Counter[str] = Counter()
        self._writers = no_figures(exchanges)
        self._shares: dict[str, Share] = {}
        self.fenced: Final = Counter[str](redis=0, postgres=0)
        """By store, how often that has shown this node that another one has its exchange."""

    @contextmanager
    def counted(self, exchange: str, share: Share) -> Iterator[None]:
        """The share has the exchange for the length of the block."""
        self._shares[exchange] = share
        try:
            yield
        finally:
            del self._shares[exchange]
            self._ended[exchange].add(share.book.ledgers[exchange])
            self._gaps.update(share.figures.gaps())
            self._writers = _sum(self._writers, share.figures.writers())

    def share_of(self, exchange: str) -> Share | None:
        """The share that has the exchange, if this node has it."""
        return self._shares.get(exchange)

    def _ledger(self, exchange: str) -> Ledger:
        whole = Ledger()
        whole.add(self._ended[exchange])
        if (share := self._shares.get(exchange)) is not None:
            whole.add(share.book.ledgers[exchange])
        return whole

    def counters(self) -> Mapping[str, Counters]:
        """The counters of received lines, by exchange."""
        return {exchange: counters_of(self._ledger(exchange)) for exchange in self._ended}

    def total(self) -> Counters:
        """The sum of the counters over all exchanges."""
        total = Ledger()
        for exchange in self._ended:
            total.add(self._ledger(exchange))
        return counters_of(total)

    def last_accepted(self, exchange: str) -> float | None:
        """When its last update was accepted here (seconds of Trio's clock), under the present term."""
        share = self._shares.get(exchange)
        return None if share is None else share.figures.last_accepted(exchange)

    def gaps(self) -> Mapping[str, int]:
        """By exchange how many trades have never come, where their ids tell."""
        gaps = Counter(self._gaps)
        for share in self._shares.values():
            gaps.update(share.figures.gaps())
        return gaps

    def writers(self) -> WriterFigures:
        """The numbers of all writers."""
        writers = self._writers
        for share in self._shares.values():
            writers = _sum(writers, share.figures.writers())
        # Buffers and pending rows are those of the shares that go on.
        running = [share.figures.writers() for share in self._shares.values()]
        return attrs.evolve(
            writers,
            pending_limits={name: limit for each in running for name, limit in each.pending_limits.items()},
            aggregates_pending=sum(each.aggregates_pending for each in running),
            aggregates_refused=sum(each.aggregates_refused for each in running),
        )


def no_figures(exchanges: Collection[str]) -> WriterFigures:
    """Those of no writer, for these exchanges."""
    nothing = Histogram().read()
    return WriterFigures({}, nothing, nothing, dict.fromkeys(exchanges, 0), 0, 0, 0)


def _sum(first: WriterFigures, second: WriterFigures) -> WriterFigures:
    return WriterFigures(
        pending_limits={**first.pending_limits, **second.pending_limits},
        latency_seconds=first.latency_seconds.plus(second.latency_seconds),
        flush_seconds=first.flush_seconds.plus(second.flush_seconds),
        volumes_ignored={
            name: count + second.volumes_ignored.get(name, 0) for name, count in first.volumes_ignored.items()
        },
        aggregates_written=first.aggregates_written + second.aggregates_written,
        aggregates_pending=first.aggregates_pending + second.aggregates_pending,
        aggregates_refused=first.aggregates_refused + second.aggregates_refused,
    )
