"""The newest update of each pair, as events whose ids grow."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import product
from operator import attrgetter, itemgetter

import trio

from marketflow.app.answers import MEMORY, Latest, PriceEvent
from marketflow.app.knowledge import StreamedBars
from marketflow.domain.prices import Pair

Filter = tuple[str | None, str | None]
"""An exchange (None: all of the mode) and a symbol (None: all)."""


class NewestEvents:
    """Keeps one event for each pair: its newest update."""

    def __init__(self, bars: StreamedBars, pairs: Sequence[Pair]) -> None:
        """`pairs`: the pairs of both modes."""
        self.events: list[PriceEvent] = []
        """Ascending by id."""
        self._changed: dict[Filter, trio.Event] = {}
        """The events on which clients wait, by filter: updates of other pairs do not wake them."""
        self._bars = bars
        self._pairs = pairs
        self._next_id = 0
        self._seen: dict[Pair, int] = {}
        """The sequence of each pair's newest update."""
        self._newest: dict[Pair, PriceEvent] = {}
        """Ascending by id."""

    async def catch_up(self, wanted: Callable[[Pair], bool]) -> None:
        """Make events of all updates of wanted pairs that were accepted before this call.

        It may wait for a store.
        """
        await self._bars.catch_up([pair for pair in self._pairs if wanted(pair)])
        self.refresh()

    def refresh(self) -> None:
        """Make events of new updates, in the order of their timestamps."""
        newer = [
            ((bar.close_time, pair[0], bar.close_sequence), pair, bar)
            for pair in self._pairs
            if (bar := self._bars.newest(pair)) and self._seen.get(pair) != bar.close_sequence
        ]
        if not newer:
            return
        if not self._newest:
            # Ids grow from boot to boot, as this does.
            self._next_id = self._bars.arrived
        for _, pair, bar in sorted(newer, key=itemgetter(0)):
            self._seen[pair] = bar.close_sequence
            self._newest.pop(pair, None)
            exchange, symbol = pair
            latest = Latest(symbol, exchange, bar.close, bar.close_time, MEMORY, bar.close_volume)
            self._newest[pair] = PriceEvent(self._next_id, latest)
            self._next_id += 1
            for asked in product((exchange, None), (symbol, None)):
                if asked in self._changed:
                    self._changed.pop(asked).set()
        self.events = [*self._newest.values()]

    async def wait_changed(self, asked: Filter) -> None:
        """Wait until there is a new event that passes the filter, or the stream ends."""
        if asked not in self._changed:
            self._changed[asked] = trio.Event()
        await self._changed[asked].wait()

    def end(self) -> None:
        """Wake all waiting clients, since there will be no more events."""
        for changed in self._changed.values():
            changed.set()

    @property
    def last_id(self) -> int:
        """The greatest id of any event so far."""
        return self._next_id - 1

    def after(self, cursor: int) -> list[PriceEvent]:
        """The events with a greater id than the cursor."""
        return self.events[bisect_right(self.events, cursor, key=attrgetter("id")) :]
