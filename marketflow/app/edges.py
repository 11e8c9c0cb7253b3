"""The partial seconds at the ends of a span: told by raw updates, or only counted where that is enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from marketflow.app.book import Book
from marketflow.app.flushing import Flusher
from marketflow.app.ports import StoreAway, Window
from marketflow.app.questions import StatisticKind
from marketflow.domain.bars import BAR_WIDTH, Bar
from marketflow.domain.periods import Span, ceil_to, floor_to
from marketflow.domain.prices import Pair

EdgeBars = Mapping[Pair, Sequence[Bar]]
"""Of each pair the bars of its edges, those without updates left out."""


@attrs.frozen
class Edges:
    """Reads edges from the window. They are complete where as many updates are there as were accepted.

    Else some are pending, or were dropped, or have expired.
    """

    _book: Book
    _flusher: Flusher
    _window: Window

    async def bars(
        self,
        spans: Sequence[Span],
        inner: Mapping[Pair, Bar | None],
        kind: StatisticKind | None,
    ) -> EdgeBars | None:
        """The bars of all that was accepted before the question; None if they cannot be told.

        What is accepted meanwhile may be among it.

        Args:
            spans: the edges; each lies within one second.
            inner: what is known beside the edges, of each pair that is asked about.
            kind: what of the bars is wanted beside the count, None for all. Of the highest price only a bar's
                `max` is to be relied on, of the lowest its `min`.
        """
        accepted = {pair: [self._accepted(pair, span) for span in spans] for pair in inner}
        if not await self._flusher.confirmed():
            return None
        hidden = [pair for pair in inner if _hides(inner[pair], accepted[pair], kind)]
        try:
            counted = await self._count(hidden, spans, accepted)
            rest = [pair for pair in inner if pair not in counted]
            read = await self._read(rest, spans, accepted)
            if read is None and await self._flusher.flushed():
                read = await self._read(rest, spans, accepted)
        except StoreAway:
            return None  # Slow or gone: it is not waited for a second time.
        return None if read is None else {**counted, **read}

    def _accepted(self, pair: Pair, span: Span) -> Bar | None:
        """The bar of the whole seconds that a span touches."""
        return self._book.bars.bar(pair, _seconds(span))

    async def _count(
        self, pairs: Sequence[Pair], spans: Sequence[Span], accepted: Mapping[Pair, Sequence[Bar | None]]
    ) -> EdgeBars:
        """Bars of which only the count is to be relied on, of pairs that have just what was accepted.

        Raises:
            StoreAway
        """
        asked = [(pair, part) for pair in pairs for span in spans for part in (_seconds(span), span)]
        counts = iter(await self._window.counts(asked) if asked else ())
        found: dict[Pair, Sequence[Bar]] = {}
        for pair in pairs:
            bars: list[Bar] = []
            complete = True
            for whole in accepted[pair]:
                in_seconds, within = next(counts), next(counts)
                complete = complete and in_seconds == (whole.count if whole else 0)
                if whole and within:
                    bars.append(whole.with_count(within))
            if complete:
                found[pair] = bars
        return found

    async def _read(
        self, pairs: Sequence[Pair], spans: Sequence[Span], accepted: Mapping[Pair, Sequence[Bar | None]]
    ) -> EdgeBars | None:
        """None if they are not all that were accepted.

        Raises:
            StoreAway
        """
        raw = await self._window.edges(pairs, spans) if pairs and spans else dict.fromkeys(pairs, ())
        complete = all(
            sum(edge.seconds.values()) >= (whole.count if whole else 0)
            for pair, edges in raw.items()
            for edge, whole in zip(edges, accepted[pair], strict=True)
        )
        if not complete:
            return None
        return {pair: [edge.bar for edge in edges if edge.bar] for pair, edges in raw.items()}


def _seconds(span: Span) -> Span:
    """The whole seconds that it touches."""
    return Span(floor_to(span.start, BAR_WIDTH), ceil_to(span.end, BAR_WIDTH))


def _hides(inner: Bar | None, edges: Sequence[Bar | None], kind: StatisticKind | None) -> bool:
    """Whether no part of the edges' seconds can go beyond what is known beside them."""
    if inner is None or not any(edges):
        return not any(edges)
    match kind:
        case "highest":
            return all(bar is None or bar.max <= inner.max for bar in edges)
        case "lowest":
            return all(bar is None or bar.min >= inner.min for bar in edges)
        case _:
            return False
