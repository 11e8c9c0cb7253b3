"""Bars that no store would take at a stop are spooled, and brought in by the next start."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final, Protocol

import attrs
import structlog
import trio

from marketflow.app.instruments.clocks import DataClock
from marketflow.app.ports import Clock, Field
from marketflow.app.share.book import Book
from marketflow.app.share.flushing import Flusher
from marketflow.app.share.second_bars import Key
from marketflow.domain.bars import Bar
from marketflow.domain.periods import floor_to
from marketflow.domain.prices import Pair

log = structlog.get_logger()

LOOK_SECONDS: Final = 1.0
"""How often the service checks whether a store has what was brought in."""


@attrs.frozen
class SpooledBar:
    """A bar that no store would take."""

    pair: Pair
    start: int
    """The start of its second, or of its interval (Unix ms)."""
    boot: str
    bar: Bar
    whole: bool
    """Whether it is the bar of a whole interval, not of a second."""


class SpoolFailed(Exception):
    """Bars could not be saved."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.place = place
        self.reason = reason


class BarsLost(Exception):
    """A stop has ended with bars that neither a store nor the spool has taken."""

    def __init__(self, bars: Sequence[SpooledBar], failure: SpoolFailed | None) -> None:
        """`failure` of the spool; None: it was not asked, since another service may have the bars too."""
        what = "not spooled beside another service" if failure is None else f"not spooled to {failure}"
        super().__init__(f"{len(bars)} bars {what}")
        self.failure = failure
        self.count = len(bars)
        self.exchanges = sorted({each.pair[0] for each in bars})
        self.first = min(each.start for each in bars)
        """The start of the oldest (Unix ms)."""
        self.last = max(each.start for each in bars)
        """The start of the newest."""


class Spool(Protocol):
    """What outlives the process, on a disk of its own."""

    async def load(self) -> Sequence[SpooledBar]:
        """All that was saved and can be read. Never raises: what cannot be read is logged and kept."""
        ...

    async def save(self, bars: Sequence[SpooledBar], within: float = ...) -> None:
        """Replace what was loaded and saved; without bars, remove it.

        What could not be loaded stays. A file that cannot be removed, or not in time, is only logged, since
        bringing bars in twice changes nothing.

        Raises:
            SpoolFailed: the bars were not saved `within` this many seconds, or at all. What was there is.
        """
        ...


class Leftovers:
    """Finds the bars that no store has, and those that rows may yet need. Tells which are surely ours."""

    def __init__(
        self,
        *,
        book: Book,
        flusher: Flusher,
        data_clock: DataClock,
        clock: Clock,
        leased_until: Callable[[], float],
        lateness: int,
    ) -> None:
        """See Spooling."""
        self._book = book
        self._flusher = flusher
        self._data_clock = data_clock
        self._clock = clock
        self._leased_until = leased_until
        self._lateness = lateness

    def found(self) -> Iterator[SpooledBar]:
        """The bars that would be lost if the process ended now."""
        for pair, (start, boot), bar in self._book.rows.folded():
            yield SpooledBar(pair, start, boot, bar, whole=True)
        if not (self._flusher.up and self._book.flushes.drained):
            for pair, (second, boot), bar in self.needed():
                yield SpooledBar(pair, second, boot, bar, whole=False)

    def needed(self) -> Iterator[tuple[Pair, Field, Bar]]:
        """The bars of rows that are not up to date, or not final: late updates may yet come in."""
        since = floor_to(self._data_clock.now() - self._lateness, self._book.bars.interval)
        return self._book.rows.needed_bars(since)

    def divided(self) -> tuple[list[SpooledBar], list[SpooledBar]]:
        """Those that are surely ours, and those of the others that Redis does not have."""
        ours: list[SpooledBar] = []
        lost: list[SpooledBar] = []
        held = self._leased_until()
        for each in self.found():
            if self._is_ours(each, held):
                ours.append(each)
            elif each.whole or not self._is_in_redis(each):
                lost.append(each)
        return ours, lost

    def _is_ours(self, bar: SpooledBar, held: float) -> bool:
        """Whether all of it was received before `held` (seconds of Trio's clock), when we held the stores.

        What an earlier boot has left is ours. The timestamps of updates do not tell: an exchange's clock may
        be behind or ahead. Of what is too old for one-second bars they do, since updates are rejected as
        late by then.
        """
        if bar.boot != self._book.boot:
            return True
        if bar.whole:
            age = (trio.current_time() - held) * 1_000
            final = bar.start + self._book.bars.interval + self._lateness
            return final <= self._clock.now() - age
        return self._book.bars.outbox.received_at((bar.pair, (bar.start, bar.boot))) < held

    def _is_in_redis(self, bar: SpooledBar) -> bool:
        """Whether Redis has acknowledged the bar of a second."""
        return (bar.pair, (bar.start, bar.boot)) not in self._book.bars.outbox


class BroughtIn:
    """The bars that the last stop has spooled: the book adopts them, and a store will have them."""

    def __init__(self, book: Book, flusher: Flusher, leftovers: Leftovers) -> None:
        self._book = book
        self._flusher = flusher
        self._leftovers = leftovers
        self._seconds: dict[Key, None] = {}
        """The bars of seconds among them."""

    def adopt(self, spooled: Iterable[SpooledBar]) -> None:
        """Have the book adopt them, those of whole intervals first."""
        for each in spooled:
            if each.whole:
                end = each.start + self._book.bars.interval
                self._book.bars.adopt_folded(each.pair, end, each.boot, each.bar)
            else:
                self._book.bars.adopt(each.pair, {(each.start, each.boot): each.bar})
                self._seconds[each.pair, (each.start, each.boot)] = None
        self._book.follow_others()

    @property
    def seconds(self) -> Collection[Key]:
        """The bars of seconds among them."""
        return self._seconds.keys()

    @property
    def stored(self) -> bool:
        """Whether all of them are in Redis, or in final rows. Bars of this boot do not count."""
        if any(True for _ in self._book.rows.folded()):
            return False
        if self._flusher.up and not any(key in self._book.bars.outbox for key in self._seconds):
            return True
        return all((pair, field) not in self._seconds for pair, field, _ in self._leftovers.needed())


class Spooling:
    """Keeps the spool: brings its bars in at the start, and saves at the end what no store has taken.

    ```
                                         stored, removed
             bring_in: it has bars    ┌──────────────────> empty ──┐
     unread ─────────────────────> full                            │ save
        │                             └────────────────────────────┼──────> holds what is left
        └──────────────────────────────> empty ────────────────────┘
              bring_in: it has none
    ```
    The spool is removed only once a store has what was in it. As long as a row may be rewritten, it is no
    substitute for its bars: a late update, merged without them, would be lost to a fuller row, or make it a
    wrong one.
    """

    def __init__(
        self,
        *,
        book: Book,
        flusher: Flusher,
        spool: Spool,
        data_clock: DataClock,
        clock: Clock,
        leased_until: Callable[[], float],
        lateness: int,
    ) -> None:
        """`lateness`: how long (ms) after the end of an interval its row may be rewritten.

        Args:
            leased_until: with another service on a store, when we held that store last (seconds of Trio's
                clock), -inf if we never did; inf without one.
        """
        self._spool = spool
        self._flusher_ended = flusher.ended
        self._leftovers = Leftovers(
            book=book,
            flusher=flusher,
            data_clock=data_clock,
            clock=clock,
            leased_until=leased_until,
            lateness=lateness,
        )
        self._brought_in = BroughtIn(book, flusher, self._leftovers)
        self._covered: list[SpooledBar] = []
        """Bars of the spool that are not adopted, as long as their updates have not entered."""
        self._full = False
        """Whether the spool has bars that may be nowhere else."""

    async def bring_in(self, recorded_from: float = math.inf) -> None:
        """At the start: adopt what the last stop has left behind.

        In a cluster, a node that has recorded its exchange before its term enters the updates from
        `recorded_from` (ms, a whole second) on by itself. The bars of these seconds have the same updates,
        so they are not adopted, and only kept until `recorded`.
        """
        spooled = _distinct(await self._spool.load())
        self._covered = [each for each in spooled if not each.whole and each.start >= recorded_from]
        self._brought_in.adopt(each for each in spooled if each.whole or each.start < recorded_from)
        self._full = bool(spooled)
        if spooled:
            log.info("spooled bars brought in", bars=len(spooled))

    def seconds_of(self, exchange: str) -> set[tuple[str, int]]:
        """The symbols and seconds (ms) of the bars that were adopted."""
        return {(pair[1], second) for pair, (second, _) in self._brought_in.seconds if pair[0] == exchange}

    def recorded(self) -> None:
        """The updates of bars that were not adopted will enter."""
        self._covered = []

    async def remove_when_stored(self) -> None:
        """Remove the spool once all is in Redis, or in final rows; ends with the flusher at the latest."""
        while self._full and not self._flusher_ended.is_set():
            if self._brought_in.stored and not self._covered:
                await self._spool.save([], LOOK_SECONDS)
                self._full = False
                return
            with trio.move_on_after(LOOK_SECONDS):
                await self._flusher_ended.wait()

    async def save(self, within: float) -> int:
        """At the end: spool what no store has taken, or what its rows may yet need. Returns how many bars.

        With another service on the stores, only what we accepted as long as we held them. The other
        service may have accepted the rest too; we cannot know since when. Spooled, these updates would count
        twice at the next start. Not spooled, some may be lost, so this is an error.

        Raises:
            BarsLost: some could not be spooled `within` this many seconds, or were not because of another.
        """
        ours, lost = self._leftovers.divided()
        ours += self._covered
        if ours:
            try:
                await self._spool.save(ours, within)
            except SpoolFailed as failure:
                raise BarsLost([*ours, *lost], failure) from failure
            log.warning("bars spooled", bars=len(ours))
        elif self._full:
            await self._spool.save([], within)
        if lost:
            log.error("bars not spooled", bars=len(lost))
            raise BarsLost(lost, None)
        return len(ours)


def _distinct(spooled: Iterable[SpooledBar]) -> list[SpooledBar]:
    """Each bar once, those of whole intervals first.

    A stop that was killed between writing the new file and removing the old one leaves both. A bar only
    grows, so the copy with more updates is the newer one; and of a bar of a whole interval and those of its
    seconds, the book takes what it sees first.
    """
    newest: dict[tuple[bool, Pair, int, str], SpooledBar] = {}
    for each in spooled:
        key = not each.whole, each.pair, each.start, each.boot
        if key not in newest or newest[key].bar.count < each.bar.count:
            newest[key] = each
    return sorted(newest.values(), key=lambda each: not each.whole)
