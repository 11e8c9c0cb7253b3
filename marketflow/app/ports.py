"""The ports through which the use cases use the outside world. Adapters implement them, and so do tests."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

import attrs

from marketflow.domain.bars import Bar
from marketflow.domain.periods import HOUR, Span
from marketflow.domain.prices import Pair, PriceUpdate

Field = tuple[int, str]
"""(second, boot): the key of a one-second bar. The second is its start in Unix ms."""

FieldBars = Mapping[Field, Bar]

BARS_KEPT: Final = HOUR
"""How long (ms) one-second bars are kept, in memory and in the window."""


class StoreAway(Exception):
    """A store failed, or did not answer within its time limit. Whether a write took effect is unknown."""


class StoreRefuses(StoreAway):
    """A store answers but refused a part of a write; the rest took effect."""


class StoreTaken(Exception):
    """Another marketflow has the lease or lock of a store. The message, if any, says how that shows."""


class RowsRefused(Exception):
    """The store answers but refuses these rows: none of them was written. The message says why."""


class StoreUnfit(Exception):
    """The store answers but cannot be used, and waiting would not help. The message says why."""


class IntervalMismatch(StoreUnfit):
    """The database holds aggregates of another interval (ms) than the configured one."""

    def __init__(self, stored: int, configured: int) -> None:
        super().__init__(f"the database holds aggregates of {stored} ms, not of {configured} ms")
        self.stored = stored
        self.configured = configured


@attrs.frozen
class Scope:
    """The part of the stores that belongs to one share: some exchanges, or all.

    Each scope has a lease of its own. Scopes in use at the same time must have no exchange in common.
    """

    exchanges: frozenset[str] | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.min_len(1))
    )
    """None: all exchanges, configured or not. A scope without any exchange is a ValueError."""

    @property
    def name(self) -> str:
        """A name that is the same for the same exchanges; empty for all."""
        return "+".join(sorted(self.exchanges or ()))

    def __contains__(self, exchange: str) -> bool:
        return self.exchanges is None or exchange in self.exchanges


ALL: Final = Scope()
"""The scope of a service that is alone on its stores."""


class Clock(Protocol):
    """The wall clock."""

    def now(self) -> int:
        """The time in Unix ms, UTC. It may step."""
        ...


class Entropy(Protocol):
    """The source of all randomness: ids of boots, jitter, generated prices. `random.Random` implements it.

    With a seed, a run can be repeated: see docs/determinism.md.
    """

    def random(self) -> float:
        """A number in [0, 1)."""
        ...

    def uniform(self, a: float, b: float) -> float:
        """A number between `a` and `b`."""
        ...

    def getrandbits(self, k: int, /) -> int:
        """An integer of `k` random bits."""
        ...


# ---- exchanges ----


class Updates(NamedTuple):
    """Accepted updates of one exchange and symbol as columns, in the order of receipt."""

    symbol: str
    timestamps: list[int]
    prices: list[float]
    bars: Mapping[int, Bar]
    """Their one-second bars by the second's start (ms). Sequences count from 0, the first of the columns."""


class Payload(Protocol):
    """The data that a source received together. Only source and codec know more than these properties."""

    @property
    def received_at(self) -> int:
        """The wall clock's time of the receipt, Unix ms."""
        ...

    @property
    def received_monotonic(self) -> float:
        """The same in seconds of Trio's clock, for latencies."""
        ...

    @property
    def messages(self) -> int:
        """The number of messages that should be updates. It is only used if the codec has raised."""
        ...


AnyPayload = TypeVar("AnyPayload", bound=Payload)
Payload_contra = TypeVar("Payload_contra", bound=Payload, contravariant=True)
Result = TypeVar("Result")


class Decoded(NamedTuple):
    """What a codec found in a payload."""

    received: int
    """Messages that stand for an update, good or bad; heartbeats and the like are none.
    Equals the rejected plus the accepted."""
    rejected: Mapping[str, int]
    """How many were rejected, by reason; only reasons that occurred."""
    updates: Sequence[Updates]
    """One for each symbol that occurred."""

    @property
    def accepted(self) -> int:
        """How many updates it holds."""
        return sum(len(updates.timestamps) for updates in self.updates)


class Decode(Protocol[Payload_contra]):
    """A source's codec: turns a payload into updates. Must not raise for anything that an exchange may send.

    If it does, that is a bug of the source: the payload's messages are counted as malformed.
    """

    def __call__(self, payload: Payload_contra, /) -> Decoded:
        """Every message of the payload, accepted or rejected with a reason."""
        ...


class Intake(Protocol[Payload_contra]):
    """The services of a feed for its source: waits that a stop ends, and the way to the workers.

    All tasks of the source may use it at the same time.
    """

    @property
    def stopping(self) -> bool:
        """Whether the stop has come: finish what was received, and return."""
        ...

    def connected(self) -> None:
        """Report that the exchange can be read now. Until then the feed counts as connecting."""
        ...

    def ended(self, error: Exception) -> None:
        """Report that the connection has ended because of `error`, if the source does not return at once.

        For example, it still has to send what was received while the workers are behind. Without this report
        the exchange counts as connected until the source has returned. The source still raises the error.
        """
        ...

    async def outside(
        self, wait: Callable[[], Awaitable[Result]], seconds: float = math.inf
    ) -> Result | None:
        """Call `wait` and return its result; None if a stop or the time limit ended it.

        Use it for every wait on the outside world, such as connecting, a pause or a reply, but not for a
        send. After the stop there is only a moment left: data that is already there is taken.
        """
        ...

    def received(self, receive: Callable[[], Awaitable[Result]]) -> AsyncIterator[Result]:
        """Call `receive` again and again and yield what it returns, until the stop.

        Any result counts as life: the idle timeout begins again. After the stop `receive` is called once
        more, so that data which has arrived is not lost. A cancelled `receive` must not lose data.

        Raises:
            TimeoutError: nothing was received for the idle timeout.
        """
        ...

    async def send(self, payload: Payload_contra) -> None:
        """Pass a payload on to the workers, in the order of the calls. It waits while the workers are behind.

        A stop does not end this wait. If the source cancels it, the payload is passed on all the same.
        """
        ...


class Source(Protocol[AnyPayload]):
    """Reads one exchange. It owns its framing, its tasks and its codec."""

    @property
    def exchange(self) -> str:
        """The exchange's name."""
        ...

    @property
    def decode(self) -> Decode[AnyPayload]:
        """Its codec."""
        ...

    async def run(self, intake: Intake[AnyPayload]) -> None:
        """Connect, and send what is received, until the connection ends or the stop comes.

        It may open a nursery for its tasks. It must return soon after the stop, so it waits for the outside
        through `intake`, or in tasks that it cancels when it has read all. If it raises or returns before the
        stop, the feed calls it again after a pause.

        Raises:
            OSError: no connection could be made, or it ended. From several tasks it may be a group.
            Exception: anything else is a bug of the source. It costs this connection only.
        """
        ...


class Chunk(NamedTuple, Generic[AnyPayload]):
    """A payload on its way to a worker."""

    exchange: str
    number: int
    """Counts the exchange's chunks from 0, without gaps."""
    payload: AnyPayload


@attrs.frozen
class Batch:
    """The result of decoding a chunk."""

    exchange: str
    number: int
    """The number of the chunk."""
    received: int
    """As in `Decoded`."""
    rejected: Mapping[str, int]
    updates: Sequence[Updates]
    received_at: int
    """Unix ms."""
    received_monotonic: float
    """Seconds of Trio's clock."""

    @property
    def accepted(self) -> int:
        """How many updates it holds."""
        return sum(len(updates.timestamps) for updates in self.updates)


# ---- the window ----


class Written(NamedTuple):
    """Updates on their way to the window."""

    exchange: str
    symbol: str
    sequences: Sequence[int]
    """The place of each update in the order of receipt. Unique within the boot; usually a range."""
    timestamps: list[int]
    prices: list[float]


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


class Window(Protocol):
    """The updates of the last 60 s and the one-second bars of the last hour, in a store that may be away.

    Every awaited method raises StoreAway when the store failed or did not answer in time; all are bounded.
    """

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

    async def all_bars(self, pairs: Sequence[Pair]) -> Mapping[Pair, FieldBars]:
        """All bars in the store, of all boots. Unreadable ones are left out and logged."""
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

    async def edges(self, pairs: Sequence[Pair], spans: Sequence[Span]) -> Mapping[Pair, Sequence[Edge]]:
        """For each pair an edge for each span."""
        ...

    async def counts(self, spans: Sequence[tuple[Pair, Span]]) -> Sequence[int]:
        """The number of members of each pair within its span, including those of another format."""
        ...

    async def prices(self, spans: Sequence[tuple[Pair, Span]]) -> Sequence[Sequence[float]]:
        """The prices of each pair within its span, in any order; without members of another format."""
        ...


# ---- the aggregate store ----


@attrs.frozen
class Aggregate:
    """The bar of one closed interval of one exchange and symbol."""

    exchange: str
    symbol: str
    end: int
    """The end of the interval in Unix ms: it covers [end - interval, end)."""
    bar: Bar
    """The bar. If it was read from the store, its sequences are 0."""


class AggregateStore(Protocol):
    """Rows of aggregates, in a store that may be away.

    Every awaited method raises StoreAway when the store failed or did not answer in time; all are bounded.
    """

    async def lease(self) -> int:
        """Make sure that we are connected, have the lock, and that the schema is up to date.

        It is quick if all this is so already. Returns a number that changes each time the lock is taken
        again.

        Raises:
            StoreTaken: another service has the lock at the moment. Try again later.
            IntervalMismatch: the rows are of another interval.
            StoreUnfit: for other reasons that waiting would not cure.
        """
        ...

    async def write(self, aggregates: Sequence[Aggregate]) -> None:
        """Insert or replace rows in one transaction. A row is never replaced by one with fewer updates.

        No two rows may be of the same interval, exchange and symbol.

        Raises:
            StoreAway: the store failed, or we do not have the lock.
            RowsRefused: at least one row is at fault. We still have the lock.
        """
        ...

    async def delete_before(self, end: int) -> int:
        """Delete the oldest rows that end before `end` (ms); returns how many.

        It deletes a bounded number of rows, and all that end at the same time as the last of them. Call it
        again until it returns 0. Raises RowsRefused as well; then none was deleted.
        """
        ...

    async def bars(self, pairs: Sequence[Pair], span: Span, width: int) -> Mapping[Pair, Mapping[int, Bar]]:
        """Rows within the span, merged into buckets, by the start (ms) of the bucket.

        Buckets are `width` ms wide and aligned to the epoch. Sequences are 0. Pairs without rows are left
        out. If `width` is not a multiple of the interval, a row belongs to the bucket in which it starts.
        """
        ...

    async def skip(
        self, pairs: Sequence[Pair], span: Span, rows: int, *, backwards: bool = False
    ) -> int | None:
        """Where (ms) a page of `rows` rows ends: up to there, one pair has `rows` rows within the span.

        With several pairs, the first one to reach that number decides. None if no pair has more rows than
        that in the span. Backwards, rows are counted from the span's end, and the page begins at the result.
        """
        ...

    async def newest(self, pairs: Sequence[Pair]) -> Mapping[Pair, PriceUpdate]:
        """The closing update of the newest row of each pair that has a row. Its sequence is 0."""
        ...
