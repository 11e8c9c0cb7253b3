"""What is removed from the window and the book because of its age, and when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import trio

from marketflow.app.instruments.clocks import CautiousClock, DataClock
from marketflow.app.ports import StoreAway, StoredBars, Window
from marketflow.app.share.book import Book
from marketflow.app.share.link import Task
from marketflow.app.share.pair_bars import genuine
from marketflow.app.share.second_bars import Key
from marketflow.app.share.sending import Sender
from marketflow.app.share.trials import Trials
from marketflow.domain.prices import Pair

TRIM_SECONDS: Final = 0.5
"""How often what is too old is removed."""
WINDOW_MARGIN: Final = 4_000
"""How much longer (ms) than its length the window is kept, so that no answer misses its oldest edge.

With the time between two trims it stays under the promised 5 s.
"""


class Ages:
    """Tells what is too old: updates to be written, updates to be kept, bars to be kept."""

    def __init__(
        self, book: Book, *, clock: CautiousClock, data_clock: DataClock, window_length: int
    ) -> None:
        """The length in ms. `clock` tells what is too old to be written, `data_clock` what may be removed."""
        self._book = book
        self._clock = clock
        self._data_clock = data_clock
        self._window_length = window_length

    def expire(self) -> None:
        """Give up pending updates that have left the window before they could be written."""
        self._book.flushes.expire(self._clock.now())

    def prune(self) -> list[Key]:
        """Have the book forget old bars; returns what the window may remove, too."""
        return self._book.bars.prune(self._data_clock.now())

    @property
    def oldest_update(self) -> int:
        """Updates before it (ms) are removed from the window."""
        return self._data_clock.now() - self._window_length - WINDOW_MARGIN


class Trimming:
    """Removes what is too old, each half second."""

    def __init__(
        self,
        ages: Ages,
        *,
        window: Window,
        sender: Sender,
        trials: Trials,
        pairs: Callable[[], Sequence[Pair]],
    ) -> None:
        """`pairs`: those that the window may have something of."""
        self._ages = ages
        self._window = window
        self._sender = sender
        self._trials = trials
        self._pairs = pairs
        self._outdated: list[Key] = []
        """Bars that are yet to be removed from the window."""
        self._last = -1.0

    @property
    def due_at(self) -> float:
        """When it is time to trim again (seconds of Trio's clock)."""
        return self._last + TRIM_SECONDS

    async def trim(self, *, due: bool = False) -> None:
        """Remove what is too old if it is time to, or `due`.

        Raises:
            StoreAway
        """
        if not due and trio.current_time() < self.due_at:
            return
        self._last = trio.current_time()  # of the attempt: while the window is away, attempts take turns
        self._outdated.extend(self._ages.prune())
        self._ages.expire()
        outdated, self._outdated = self._outdated, []
        trim = self._window.encode_trim(self._pairs(), older_than=self._ages.oldest_update, bars=outdated)
        try:
            with self._trials.of(Task.TRIM):
                await self._sender.write(trim)
        except StoreAway:
            self._outdated.extend(outdated)
            raise

    async def try_again(self) -> None:
        """Trim now if the last trim has failed: the rest has had its turn.

        Raises:
            StoreAway
        """
        if Task.TRIM in self._trials.link.failing:
            await self.trim(due=True)

    def while_away(self) -> None:
        """Have the book forget what is too old; what the window has of it is found when it is read."""
        self._ages.expire()
        self._ages.prune()

    def prune(self) -> None:
        """Forget old bars of the book, and remember to remove them from the window."""
        self._outdated.extend(self._ages.prune())

    def found(self, pair: Pair, bars: StoredBars, outdated: int) -> None:
        """Remember to remove bars that the window has, from before `outdated` (ms)."""
        for start, minute in bars.items():
            if start < outdated:
                self._outdated.extend((pair, field) for field in genuine(minute)[0] if field[0] < outdated)
