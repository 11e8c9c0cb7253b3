"""The newest update of each pair, as events whose ids grow."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import product
from operator import attrgetter, itemgetter

import trio

from marketflow.app.answers import MEMORY, Latest, PriceEvent
from marketflow.app.share.book import Book
from marketflow.domain.prices import Pair

Filter = tuple[str | None, str | None]
"""An exchange or all of the mode, and a symbol or all."""


class Board:
    """The newest update of each pair, as events."""

    def __init__(self, book: Book, pairs: Sequence[Pair]) -> None:
        """`pairs` are those of both modes."""
        self.events: list[PriceEvent] = []
        """Ascending by id."""
        self._changed: dict[Filter, trio.Event] = {}
        """What those wait for who have all that they asked for: who asks for what is quiet is not woken."""
        self._book = book
        self._pairs = pairs
        self._next_id = 0
        self._seen: dict[Pair, int] = {}
        """Sequences of the newest updates."""
        self._newest: dict[Pair, PriceEvent] = {}
        """Ascending by id."""

    def refresh(self) -> None:
        """Take over from the book what is newer. New events get their ids in the order of receipt."""
        newer = [
            (bar.close_sequence, pair, bar)
            for pair in self._pairs
            if (bar := self._book.bars.newest(pair)) and self._seen.get(pair) != bar.close_sequence
        ]
        if not newer:
            return
        if not self._newest:
            # So ids are greater than those of earlier boots, as sequences are.
            self._next_id = self._book.next_sequence
        for sequence, pair, bar in sorted(newer, key=itemgetter(0)):
            self._seen[pair] = sequence
            self._newest.pop(pair, None)
            exchange, symbol = pair
            latest = Latest(symbol, exchange, bar.close, bar.close_time, MEMORY)
            self._newest[pair] = PriceEvent(self._next_id, latest)
            self._next_id += 1
            for asked in product((exchange, None), (symbol, None)):
                if asked in self._changed:
                    self._changed.pop(asked).set()
        self.events = [*self._newest.values()]

    async def wait_changed(self, asked: Filter) -> None:
        """Wait for an event of what is asked for, or the end."""
        if asked not in self._changed:
            self._changed[asked] = trio.Event()
        await self._changed[asked].wait()

    def end(self) -> None:
        """There will be no more events: wake everybody."""
        for changed in self._changed.values():
            changed.set()

    @property
    def last_id(self) -> int:
        """No event has had a greater one."""
        return self._next_id - 1

    def after(self, cursor: int) -> list[PriceEvent]:
        """Those with a greater id."""
        return self.events[bisect_right(self.events, cursor, key=attrgetter("id")) :]
