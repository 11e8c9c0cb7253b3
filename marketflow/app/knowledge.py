"""The ports that questions and the live stream read: the known bars, and how far they can be trusted.

Questions and the stream do not depend on what implements the ports. On a machine with feeds these are
`known_bars.py` and `standing.py` in `marketflow/app/share/`. Tests also implement them with Redis alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise
from typing import Final, Literal, Protocol

import attrs

from marketflow.app.ports import BARS_KEPT
from marketflow.domain.bars import Bar
from marketflow.domain.periods import Interval, Span, ceil_to, floor_to
from marketflow.domain.prices import Pair

BARS: Final = "bars"
ROWS: Final = "rows"
Origin = Literal["bars", "rows"]
"""What can answer for a span: one-second bars, or rows of aggregates."""

UNREAD_REACH: Final = 3 * BARS_KEPT
"""How far (ms) before the beginning of this boot unread bars may tell of updates.

A boot keeps bars for a little more than an hour, and Redis keeps them for an hour after the last write. So at
the start of the next boot they are two hours and some minutes old at most.
"""


class KnownBars(Protocol):
    """One-second bars, and the rows that are not in the database yet.

    Only `catch_up` may wait for a store. All other methods read memory, in one step.
    """

    @property
    def forgotten_to(self) -> int:
        """One-second bars before this time (ms) have been forgotten, or Redis has lost some of them."""
        ...

    async def catch_up(self, pairs: Sequence[Pair]) -> None:
        """Learn of all updates of these pairs that were accepted (or are in Redis) before this call.

        A question calls it before it reads. If bars are made from updates as they arrive, they are always up
        to date, and it does nothing.
        """
        ...

    def newest(self, pair: Pair) -> Bar | None:
        """The bar with the newest update; its close is the latest price. None: no update is known."""
        ...

    def bar(self, pair: Pair, span: Span) -> Bar | None:
        """The updates of the seconds that start within the span, as one bar; None if there are none."""
        ...

    def seconds(self, pair: Pair, span: Span) -> list[tuple[int, Bar]]:
        """The bars of the seconds that start within the span, with their start (ms).

        Each boot has a bar of its own, so that a second may occur more than once.
        """
        ...

    def minutes(self, pair: Pair, span: Span) -> list[tuple[int, Bar]]:
        """The same updates in fewer bars: whole minutes are merged, the seconds at both ends are not."""
        ...

    def unwritten(self, pair: Pair, span: Span) -> dict[int, Bar]:
        """Intervals within the span whose rows are not up to date in the database: by start (ms) the bar."""
        ...

    def may_lack(self, exchange: str) -> bool:
        """Whether updates of this exchange may be missing in the window for good.

        Such updates are dropped while Redis is away and the buffers are full. The bars still count them.
        """
        ...


class StreamedBars(Protocol):
    """What the live stream reads: the newest updates, and when there are others."""

    @property
    def arrived(self) -> int:
        """A number that grows with each update that is known, and from boot to boot."""
        ...

    async def catch_up(self, pairs: Sequence[Pair]) -> None:
        """Learn of all updates of these pairs that were accepted (or are in Redis) before this call."""
        ...

    async def wait_for_updates(self, since: int) -> int:
        """Wait until `arrived` is greater than `since`; returns it. It may wait for a store."""
        ...

    def newest(self, pair: Pair) -> Bar | None:
        """The bar with the newest update. None: no update is known."""
        ...


class Standing(Protocol):
    """How far the known bars can be trusted: the history of earlier boots, and the window in Redis."""

    @property
    def began_at(self) -> int | None:
        """When this boot began to accept updates (Unix ms); None before that."""
        ...

    @property
    def history_known(self) -> bool:
        """Whether the known bars include those that earlier boots made in the last hour."""
        ...

    @property
    def known_from(self) -> int:
        """From when on (ms) the known bars include those of earlier boots; 0: if `history_known`.

        The open minutes are read first.
        """
        ...

    async def wait_for_history(self, since: int) -> None:
        """Wait until the history is known from `since` (ms) on, or it is clear that it cannot be read.

        This takes long only just after the start. The wait is bounded.
        """
        ...

    async def can_answer_from_redis(self) -> bool:
        """Whether Redis answers and is complete. The wait for its answer is bounded."""
        ...

    async def flushed(self) -> bool:
        """Wait until the window holds all updates accepted before this call; returns whether it does.

        The wait is bounded. False: Redis is away, or too slow.
        """
        ...


@attrs.frozen
class View:
    """What is known at one moment of some exchanges. Fills the port Views on a machine with one share."""

    bars: KnownBars
    standing: Standing

    def of(self, exchanges: AbstractSet[str]) -> View:  # noqa: ARG002 - one share has all of them
        """Itself."""
        return self


class Views(Protocol):
    """The views of exchanges. On a single machine there is one of all; in a cluster they come and go."""

    def of(self, exchanges: AbstractSet[str]) -> View:
        """The view of these exchanges at this moment. A question keeps it until it is answered."""
        ...


@attrs.frozen
class Part:
    """A part of a span."""

    span: Span
    origin: Origin | None
    """What it can be answered from; None: not all of its updates are known."""


@attrs.frozen
class Knowledge:
    """What can answer for which time, at one moment. All times are Unix ms.

    One-second bars answer for the time from `bars_from` on, rows of whole intervals for the time before it.
    Two parts cannot be answered for: the time whose rows were deleted, and some hours before this boot began,
    until the bars of earlier boots have been read. Rows cannot answer for those hours: the boot before may
    have ended before it wrote them.
    """

    interval: int
    """The length of an aggregate."""
    bars_from: int
    """Every update accepted from here on is in a known one-second bar."""
    rows_from: int
    """No row from here on was deleted because of its age."""
    unread: Span
    """The time that only unread bars of earlier boots can answer for. Empty once all have been read."""

    @classmethod
    def at(
        cls,
        now: int,
        *,
        interval: int,
        retention: int | None,
        forgotten_to: int,
        known_from: int,
        began_at: int | None,
    ) -> Knowledge:
        """What is known at `now`. All times in ms.

        Args:
            now: Unix ms.
            interval: the length of an aggregate.
            retention: how long rows are kept; None for ever.
            forgotten_to: bars before this time have been forgotten.
            known_from: the bars of earlier boots are known from this time on.
            began_at: when this boot began to accept updates; None before that.
        """
        # Until this boot accepts updates another one may be running, and nothing is known for sure.
        unread_from = 0 if began_at is None else max(0, floor_to(began_at - UNREAD_REACH, interval))
        unread = Span(min(unread_from, known_from), known_from)
        kept_from = max(floor_to(now - BARS_KEPT, interval), forgotten_to)
        # After the clock was set back, `forgotten_to` may be later than now.
        bars_from = max(min(kept_from, floor_to(now, interval)), unread.end)
        rows_from = 0 if retention is None else ceil_to(now - retention, interval)
        return cls(interval, bars_from, rows_from, unread)

    def parts(self, span: Span) -> list[Part]:
        """The span, cut into parts in ascending order by what can answer for them."""
        if span.empty:
            return []
        cuts = (self.rows_from, self._gap.start, self._gap.end, self.bars_from)
        inner = sorted(dict.fromkeys(cut for cut in cuts if span.start < cut < span.end))
        found: list[Part] = []
        for start, end in pairwise([span.start, *inner, span.end]):
            origin = self._origin(start)
            joined = found and found[-1].origin == origin
            found.append(Part(Span(found.pop().span.start if joined else start, end), origin))
        return found

    def whole_from(self, start: int, end: int | None = None) -> int:
        """The earliest time from which nothing is missing up to `end`; not before the interval of `start`.

        If rows answer for it, it is a boundary of intervals. None for `end`: up to now.
        """
        if start >= self.bars_from:
            return start
        # Rows tell of whole intervals only, so the one in which the unread time ends is no part of them.
        is_before = end is not None and end <= self.unread.start
        after_unread = 0 if is_before else ceil_to(self.unread.end, self.interval)
        return min(max(floor_to(start, self.interval), self.rows_from, after_unread), self.bars_from)

    def buckets_from(self, buckets: Interval) -> int:
        """The start of the first of these buckets whose beginning was neither forgotten nor deleted."""
        if buckets.width % self.interval:  # rows cannot be merged into such a bucket
            return buckets.ceil(self.bars_from)
        return buckets.ceil(min(self.bars_from, self.rows_from))

    def has_unread(self, span: Span) -> bool:
        """Whether a part of the span may have bars of earlier boots that have not been read yet."""
        return max(span.start, self.unread.start) < min(span.end, self.unread.end)

    @property
    def _gap(self) -> Span:
        """The unread time, together with the forgotten part of the interval in which it ends.

        That interval gets its row only once the history is known.
        """
        if self.unread.empty:
            return Span(0, 0)
        return Span(self.unread.start, min(ceil_to(self.unread.end, self.interval), self.bars_from))

    def _origin(self, timestamp: int) -> Origin | None:
        if timestamp >= self.bars_from:
            return BARS
        return ROWS if timestamp >= self.rows_from and timestamp not in self._gap else None
