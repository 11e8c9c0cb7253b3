"""Fills the port of known bars from the book of a share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import trio

from marketflow.app.share.book import Book
from marketflow.domain.bars import Bar
from marketflow.domain.periods import SECOND, Span
from marketflow.domain.prices import FUTURE_TOLERANCE, Pair

AHEAD: Final = FUTURE_TOLERANCE / SECOND
"""Seconds that an accepted timestamp may be ahead of our clock."""


class BookBars:
    """Fills the ports KnownBars and StreamedBars. The book is the only writer of its exchanges' bars."""

    def __init__(self, book: Book, *, window_length: int) -> None:
        """`window_length` is how long (ms) the window keeps an update."""
        self._book = book
        self._bars = book.bars
        self._rows = book.rows
        self._window_length = window_length / SECOND
        self._drops: dict[str, tuple[int, float]] = {}
        """By exchange how many updates it had dropped, and when that was first seen (Trio's clock)."""

    @property
    def forgotten_to(self) -> int:
        """Bars before this time (ms) have been forgotten, or Redis had lost some of them."""
        return max(self._bars.pruned_to, self._rows.adopted.reach)

    @property
    def arrived(self) -> int:
        """It grows with each update that enters."""
        return self._book.arrivals.next

    async def catch_up(self, pairs: Sequence[Pair]) -> None:
        """No-op: updates enter the book as they are accepted."""

    async def wait_for_updates(self, since: int) -> int:
        """Wait until more updates have entered than at `since`; returns `arrived`."""
        return await self._book.arrivals.wait_beyond(since)

    def newest(self, pair: Pair) -> Bar | None:
        """The bar with the newest update."""
        return self._bars.newest_bars.of(pair)

    def bar(self, pair: Pair, span: Span) -> Bar | None:
        """The updates of the seconds that start within the span."""
        return self._bars.bar(pair, span)

    def seconds(self, pair: Pair, span: Span) -> list[tuple[int, Bar]]:
        """The bars of the seconds that start within the span, one for each boot."""
        return [(second, bar) for (second, _), bar in self._bars.fields(pair, span).items()]

    def minutes(self, pair: Pair, span: Span) -> list[tuple[int, Bar]]:
        """The same updates, with whole minutes merged."""
        return self._bars.parts(pair, span)

    def unwritten(self, pair: Pair, span: Span) -> dict[int, Bar]:
        """By their start (ms) the bars of intervals whose rows are not up to date."""
        return self._rows.unwritten_between(pair, span)

    def may_lack(self, exchange: str) -> bool:
        """Whether an update that the window would still hold may have been dropped."""
        now, dropped = trio.current_time(), self._book.ledgers[exchange].dropped.total()
        before, seen_at = self._drops.get(exchange, (0, -math.inf))
        if dropped != before:
            seen_at = now
            self._drops[exchange] = dropped, seen_at
        return now - seen_at <= self._window_length + AHEAD
