"""What a node has received of an exchange before it had it: decoded, bounded, and in no ledger yet.

```
              sift, once the window was read           open           all entered
 recording ──────────────────────────────────> sifted ──────> entering ──────────> passing
     └────────── close: the exchange is not ours ────────> closed <── cut off: it was lost, from every state
```
The record stands between the pool and the book. What the window has already is sifted out by a difference of
multisets: each update there cancels one recorded update of the same symbol, timestamp and price. So neither
order nor lateness matters. Trades with ids are left to the book, which takes each id once.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from enum import Enum
from typing import Final

import trio

from marketflow.app.ports import Batch, Updates
from marketflow.domain.bars import BAR_WIDTH, in_seconds
from marketflow.domain.periods import Span, floor_to
from marketflow.domain.prices import DUPLICATE, UNDECIDED, PriceUpdate

SKEW_SECONDS: Final = 2.0
"""So long after the last owner has stored an update it may still reach us: connections differ."""
FOREVER: Final = 2**53
"""After all timestamps (ms)."""


class RecordState(Enum):
    """Where the batches of the pool go."""

    RECORDING = "recording"
    """They are kept."""
    SIFTED = "sifted"
    """The window has none of what was kept. New ones wait."""
    ENTERING = "entering"
    """What was kept enters the book. New ones wait."""
    PASSING = "passing"
    """Straight to the book."""
    CLOSED = "closed"
    """Nowhere: the exchange is another node's. The end."""


class Kept:
    """Batches in the order of receipt: those of the last seconds, and not too many."""

    def __init__(self, *, most: int, seconds: float) -> None:
        """`most`: updates that are kept, about; with more the oldest batches are dropped."""
        self.batches: deque[Batch] = deque()
        self.size = 0
        """Updates in all batches."""
        self.dropped = 0
        """Updates for which there was no room."""
        self._full_at = -math.inf
        """When there was no room last (seconds of Trio's clock)."""
        self._most = most
        self._seconds = seconds

    def add(self, batch: Batch) -> None:
        """Keep one more."""
        self.batches.append(batch)
        self.size += batch.accepted
        until = batch.received_monotonic - self._seconds
        while self.batches[0].received_monotonic < until:
            self.size -= self.batches.popleft().accepted
        while self.size > self._most and len(self.batches) > 1:
            lost = self.batches.popleft().accepted
            self.size -= lost
            self.dropped += lost
            self._full_at = batch.received_monotonic

    def keep_all(self) -> None:
        """From now on nothing becomes too old: the exchange is ours, and the record waits for the window."""
        if self.reaches_back:
            self._full_at = -math.inf  # What there was no room for would be too old anyway.
        self._seconds = math.inf

    @property
    def begins(self) -> float:
        """All that was received since then is kept (seconds of Trio's clock), if there was a connection."""
        begins = trio.current_time() - self._seconds
        if self._full_at > begins and self.batches:
            begins = self.batches[0].received_monotonic
        return begins

    @property
    def reaches_back(self) -> bool:
        """Whether all of the last seconds is kept."""
        return self._full_at == -math.inf or trio.current_time() - self._full_at > self._seconds

    def clear(self) -> None:
        """Forget all."""
        self.batches.clear()
        self.size = 0

    @property
    def updates(self) -> Iterable[Updates]:
        """Those of all batches."""
        return (each for batch in self.batches for each in batch.updates if len(each.columns))


class Known:
    """The multiset of updates that the window has. Each cancels one update that comes."""

    def __init__(
        self, updates: Iterable[PriceUpdate] = (), spooled: Collection[tuple[str, int]] = frozenset()
    ) -> None:
        """`spooled`: symbols and seconds (ms) of which the last owner has left a bar."""
        self._left = Counter((update.symbol, update.timestamp, update.price) for update in updates)
        self._spooled = spooled

    def __bool__(self) -> bool:
        return bool(self._left) or bool(self._spooled)

    def sifted(self, batch: Batch, since: int = 0) -> Batch:
        """The batch without updates that are known, are older than `since` (ms), or are in a spooled bar.

        Trades with ids are left as they are.
        """
        if batch.identity is not None:
            return batch
        updates: list[Updates] = []
        rejected: Counter[str] = Counter()
        for each in batch.updates:
            places = self._new_places(each, since, rejected)
            if len(places) == len(each.columns):
                updates.append(each)
            elif places:
                columns = each.columns.take(places)
                updates.append(Updates(each.symbol, columns, in_seconds(columns)))
        if not rejected:
            return batch
        accepted = sum(len(each.columns) for each in updates)
        return batch.sifted(
            updates,
            dict(rejected + Counter(batch.rejected)),
            ignored_volumes=min(batch.ignored_volumes, accepted),
        )

    def _new_places(self, updates: Updates, since: int, rejected: Counter[str]) -> list[int]:
        """The places of updates that are new; the others are counted in `rejected`."""
        places, columns = [], updates.columns
        for place, (timestamp, price) in enumerate(zip(columns.timestamps, columns.prices, strict=True)):
            key = updates.symbol, timestamp, price
            if (left := self._left.get(key, 0)) > 0:
                self._left[key] = left - 1
                rejected[DUPLICATE] += 1
            elif timestamp < since or (updates.symbol, floor_to(timestamp, BAR_WIDTH)) in self._spooled:
                rejected[UNDECIDED] += 1
            else:
                places.append(place)
        return places


class Record:
    """What has come of one exchange; in the end the way to the book."""

    def __init__(self, *, most: int, seconds: float) -> None:
        """Makes one that is recording.

        Args:
            most: updates that are kept, about.
            seconds: for how long a batch is kept. Its owner has stored it long before.
        """
        self.state = RecordState.RECORDING
        self.kept = Kept(most=most, seconds=seconds)
        self.last_accepted: dict[str, float] = {}
        """By exchange, when updates have come last, recorded or not (seconds of Trio's clock)."""
        self._known = Known()
        """What the window has, and has not come yet."""
        self._skewed_until = -math.inf
        """Seconds of Trio's clock."""
        self._book: Callable[[Batch], Awaitable[None]] = _nowhere
        self._decided = trio.Event()
        """Set when batches are not kept any more."""

    async def enter(self, batch: Batch) -> None:
        """Take a batch of the pool. It waits only for the book."""
        if batch.updates:
            self.last_accepted[batch.exchange] = trio.current_time()
        if self.state is RecordState.RECORDING:
            self.kept.add(batch)
            return
        await self._decided.wait()
        if self._known:
            if batch.received_monotonic < self._skewed_until:
                batch = self._known.sifted(batch)
            else:
                self._known = Known()
        await self._book(batch)

    @property
    def newest(self) -> int:
        """The greatest timestamp (ms); 0: nothing is kept."""
        return max((max(each.columns.timestamps) for each in self.kept.updates), default=0)

    def spans(self, symbols: Iterable[str], now: int) -> Sequence[tuple[str, Span]]:
        """The seconds of each symbol's updates, and for all symbols the last seconds and what is behind them.

        The last owner may have stored updates that have not reached us yet, also of symbols of which nothing
        has come.

        Args:
            symbols: all of the exchange's.
            now: the wall clock's time (Unix ms).
        """
        since = floor_to((self.newest or now) - round(SKEW_SECONDS * 1_000), BAR_WIDTH)
        found: dict[str, set[int]] = {symbol: set() for symbol in symbols}
        for each in self.kept.updates:
            found.setdefault(each.symbol, set()).update(second for second in each.bars if second < since)
        return [
            (symbol, span)
            for symbol, seconds in found.items()
            for span in (*_seconds(seconds), Span(since, FOREVER))
        ]

    def keep(self, connected_at: float, now: int) -> int:
        """Keep all from now on: the exchange is ours. Returns from which second on (ms) nothing is missing.

        Connections differ, and so do clocks. So that second begins after all that came in the first
        SKEW_SECONDS.

        Args:
            connected_at: since when the exchange was connected without a break (seconds of Trio's clock).
            now: the wall clock's time (Unix ms).
        """
        early = max(connected_at, self.kept.begins) + SKEW_SECONDS
        self.kept.keep_all()
        newest = (
            max(each.columns.timestamps)
            for batch in self.kept.batches
            if batch.received_monotonic < early
            for each in batch.updates
            if len(each.columns)
        )
        passed = now - round((trio.current_time() - early) * 1_000)
        return floor_to(max(passed, *newest, 0), BAR_WIDTH) + BAR_WIDTH

    def ids_of(self, seconds: Collection[tuple[str, int]]) -> Iterator[tuple[str, list[str]]]:
        """By symbol the ids of trades in these seconds (symbol, start in ms)."""
        for each in self.kept.updates:
            if each.columns.ids is not None and any((each.symbol, second) in seconds for second in each.bars):
                yield (
                    each.symbol,
                    [
                        number
                        for number, timestamp in zip(each.columns.ids, each.columns.timestamps, strict=True)
                        if number is not None and (each.symbol, floor_to(timestamp, BAR_WIDTH)) in seconds
                    ],
                )

    def sift(
        self,
        known: Iterable[PriceUpdate],
        since: int,
        spooled: Collection[tuple[str, int]] = frozenset(),
    ) -> None:
        """Reject what the window has already, what it cannot tell, and what the last owner has spooled.

        Args:
            known: what the window has of the record's spans.
            since: the window has all updates from here on (ms).
            spooled: symbols and seconds (ms) whose bars the last owner has left, and the book has adopted.
        """
        self._known = Known(known, spooled)
        self._skewed_until = trio.current_time() + SKEW_SECONDS
        for place in range(len(self.kept.batches)):
            self.kept.batches[place] = self._known.sifted(self.kept.batches[place], since)
        self.state = RecordState.SIFTED

    async def open(self, book: Callable[[Batch], Awaitable[None]]) -> None:
        """Enter what was kept into the book; from then on everything goes there."""
        self.state = RecordState.ENTERING
        while self.kept.batches:
            await book(self.kept.batches.popleft())
        self.kept.clear()
        self.state = RecordState.PASSING
        self._book = book
        self._decided.set()

    def cut_off(self) -> None:
        """The exchange was lost: nothing gets into the book any more, though the feed may still run."""
        self.state = RecordState.CLOSED
        self._book = _nowhere
        self.kept.clear()
        self._decided.set()

    def close(self) -> None:
        """Forget everything: the exchange is not ours. No-op once it passes batches on."""
        if self.state is not RecordState.PASSING:
            self.cut_off()


def _seconds(starts: Iterable[int]) -> Iterator[Span]:
    """The spans of these seconds. Each is a question of its own, so that none takes long."""
    return (Span(start, start + BAR_WIDTH) for start in sorted(starts))


async def _nowhere(_: Batch) -> None:
    """Where batches of a closed record go."""
    await trio.lowlevel.checkpoint()
