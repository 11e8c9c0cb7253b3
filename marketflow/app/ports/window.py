"""The port for the window: the updates of the last minute, and the one-second bars of the last hour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import attrs

from marketflow.domain.bars import Bar
from marketflow.domain.columns import Columns
from marketflow.domain.packed_minute import PackedMinute
from marketflow.domain.periods import HOUR, Span
from marketflow.domain.prices import Pair, PriceUpdate

Field = tuple[int, str]
"""(second, boot): the key of a one-second bar. The second is its start in Unix ms."""

FieldBars = Mapping[Field, Bar]

StoredBars = Mapping[int, PackedMinute]
"""Bars as a store has them, by the start of their minute (ms)."""

BARS_KEPT: Final = HOUR
"""How long (ms) one-second bars are kept, in memory and in the window."""


class Written(NamedTuple):
    """Updates on their way to the window."""

    exchange: str
    symbol: str
    sequences: Sequence[int]
    """The place of each update in the order of receipt. Unique within the boot; usually a range."""
    columns: Columns


@attrs.frozen
class Flush:
    """Updates and bars that are written to the window together. Writing them twice changes nothing."""

    updates: Sequence[Written]
    bars: Sequence[tuple[Pair, Field, Bar]]
    """Absolute values."""


class EncodedFlush(Protocol):
    """A flush in the window's own format. It never changes, so a repeated write is the same byte for byte."""

    @property
    def size(self) -> int:
        """Bytes that it holds in memory."""
        ...

    def without_bars(self) -> EncodedFlush:
        """The flush without its bars, for a later replay: by then the bars have changed."""
        ...


@attrs.frozen
class Edge:
    """The window's raw updates in a span of one exchange and symbol, as a bar."""

    bar: Bar | None
    """The updates within the span; None without any."""
    seconds: Mapping[int, int]
    """The number of raw updates in each whole second (start, ms) that the span touches.

    Comparing these with the bars of the same seconds shows whether the raw updates are complete.
    """


class Sight(NamedTuple):
    """Which boot has the lease of the window, and which one wrote last."""

    holder: str | None
    """The boot that has the lease; None: nobody."""
    marker: str | None
    """`<boot>:<number>` of the last write; None: there was none, or the lease was released since."""


class WindowReading(Protocol):
    """What the window answers to questions. Every method raises StoreAway, and is bounded."""

    async def all_bars(self, pairs: Sequence[Pair]) -> Mapping[Pair, StoredBars]:
        """All bars in the store, of all boots. They have not been looked at: some may be foreign.

        Those in other forms than ours are left out and logged.
        """
        ...

    async def edges(self, pairs: Sequence[Pair], spans: Sequence[Span]) -> Mapping[Pair, Sequence[Edge]]:
        """For each pair an edge for each span."""
        ...

    async def counts(self, spans: Sequence[tuple[Pair, Span]]) -> Sequence[int]:
        """The number of members of each pair within its span, including those of another format."""
        ...

    async def updates(self, spans: Sequence[tuple[Pair, Span]]) -> Sequence[Sequence[PriceUpdate]]:
        """The updates of each pair within its span, in any order; without members of another format."""
        ...

    async def prices(self, spans: Sequence[tuple[Pair, Span]]) -> Sequence[Sequence[float]]:
        """The prices of each pair within its span, in any order; without members of another format."""
        ...


class Window(WindowReading, Protocol):
    """The updates of the last 60 s and the one-second bars of the last hour, in a store that may be away.

    Every awaited method raises StoreAway when the store failed or did not answer in time; all are bounded.
    """

    async def bars_within(self, pairs: Sequence[Pair], span: Span) -> Mapping[Pair, StoredBars]:
        """The bars of the whole minutes of this span, of all boots. They have not been looked at, either.

        For a span of some minutes it takes a tenth of the time of `all_bars`.

        Raises:
            StoreRefuses: the store answers, but does not allow this. `all_bars` may work.
        """
        ...

    async def pairs_with_bars(self) -> Sequence[Pair]:
        """Pairs that have bars in the store, configured or not, as far as can be found in bounded time.

        Keys that only look like bars do not count. Does not raise StoreAway: if the store fails, that is
        logged, and the result is empty.
        """
        ...

    async def bars(self, fields: Mapping[Pair, Sequence[Field]]) -> Mapping[Pair, FieldBars]:
        """The bars in the given fields; fields that the store does not have are left out."""
        ...

    async def ids(self, pairs: Sequence[Pair], most: int) -> Mapping[Pair, Sequence[str]]:
        """The ids of the newest `most` updates of each pair, the oldest first. Not all need have an id."""
        ...

    def encode(self, flush: Flush) -> EncodedFlush:
        """The flush as it will be written. No I/O."""
        ...

    def encode_trim(
        self, pairs: Sequence[Pair], *, older_than: int, bars: Sequence[tuple[Pair, Field]]
    ) -> EncodedFlush:
        """A flush that removes the updates with a timestamp (ms) before `older_than`, and the given bars."""
        ...

    async def post(self, flush: Any) -> bool:
        """Send an encoded flush, and wait until all flushes posted *before* it are acknowledged.

        So one flush is on its way while the next one is being encoded. Flushes are written in this order.
        Each write sets a marker and checks the one before. Returns whether each write that is acknowledged
        now has found the marker of the write before it. If not, earlier data may be gone: the store was
        emptied, is new, or has come back with an older state. Or a write whose answer was lost has found
        this.

        After StoreAway nothing is on its way any more: it is unknown which of the flushes were written.
        """
        ...

    async def collect(self) -> bool:
        """Wait until all posted flushes are acknowledged. Returns the same as `post`."""
        ...

    async def write(self, flush: Any) -> bool:
        """`post` and `collect` in one."""
        ...

    @property
    def met(self) -> Sight:
        """What the last acknowledged writes have found.

        The marker is that of another boot, if one of these writes has found it instead of ours, else None.
        """
        ...

    async def look(self) -> Sight:
        """Read which boot has the lease, and the marker. Writes nothing."""
        ...

    async def take(self, found: Sight) -> bool:
        """Take the lease, unless its holder has changed since it was `found`; returns whether we have it.

        If another boot has it, it is also not taken if the marker has changed. The lease expires 5 s after it
        was taken or renewed; every write renews it. After StoreAway it may have been taken.
        """
        ...

    async def release(self) -> None:
        """Release the lease, if it is ours, and remove the marker, to show that nobody writes any more."""
        ...
