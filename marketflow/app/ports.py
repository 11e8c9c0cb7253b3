"""What the use cases ask of the outside world. Adapters fill these, tests too."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

import attrs

from marketflow.domain.bars import Bar
from marketflow.domain.periods import HOUR, Span
from marketflow.domain.prices import Pair, PriceUpdate

Field = tuple[int, str]
"""(second, boot): the place of a one-second bar. The second is its start in Unix ms."""

FieldBars = Mapping[Field, Bar]

BARS_KEPT: Final = HOUR
"""How long (ms) one-second bars are kept, in memory and in the window."""


class StoreAway(Exception):
    """A store failed, or did not answer within its time limit. Whether a write took effect is unknown."""


class StoreRefuses(StoreAway):
    """A store answers, and refuses a part of what was asked; the rest took effect."""


class StoreTaken(Exception):
    """Another marketflow holds the stores. The message says how that shows, where there is one."""


class RowsRefused(Exception):
    """The store answers, and does not take these rows: none of them was written. The message says why."""


class StoreUnfit(Exception):
    """The store answers, and waiting does not make it fit for us. The message says why."""


class IntervalMismatch(StoreUnfit):
    """The database holds aggregates of another interval (ms) than the configured one."""

    def __init__(self, stored: int, configured: int) -> None:
        super().__init__(f"the database holds aggregates of {stored} ms, not of {configured} ms")
        self.stored = stored
        self.configured = configured


@attrs.frozen
class Scope:
    """What of the stores one share holds: some exchanges, or all there are.

    Each scope has a lease of its own. Scopes in use at the same time must have no exchange in common.
    """

    exchanges: frozenset[str] | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.min_len(1))
    )
    """None for all, configured or not. A scope of no exchange is a ValueError."""

    @property
    def name(self) -> str:
        """The same for the same exchanges; empty for all."""
        return "+".join(sorted(self.exchanges or ()))

    def __contains__(self, exchange: str) -> bool:
        return self.exchanges is None or exchange in self.exchanges


ALL: Final = Scope()
"""The scope of a service that is alone on its stores."""


class Clock(Protocol):
    """The wall clock."""

    def now(self) -> int:
        """Unix ms, UTC. May step."""
        ...


class Entropy(Protocol):
    """Where everything random comes from: ids of boots, jitter, generated prices. `random.Random` fills it.

    With a seeded one a run repeats itself, see docs/determinism.md.
    """

    def random(self) -> float:
        """A number of [0, 1)."""
        ...

    def uniform(self, a: float, b: float) -> float:
        """A number between the two."""
        ...

    def getrandbits(self, k: int, /) -> int:
        """A whole number of `k` bits."""
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
    """What a source received in one go. What else it holds is between the source and its codec."""

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
        """How many messages of it stand for an update. Asked for only if the codec has failed on it."""
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
    """What a feed gives to its source: waits that a stop ends, and the way to the workers.

    All tasks of the source may use it at the same time.
    """

    @property
    def stopping(self) -> bool:
        """Whether the stop has come: finish what was received, and return."""
        ...

    def connected(self) -> None:
        """Report that the exchange can be read now. Until then the feed counts as connecting."""
        ...

    async def outside(
        self, wait: Callable[[], Awaitable[Result]], seconds: float = math.inf
    ) -> Result | None:
        """Call `wait` and return its result; None if a stop or the time limit ended it.

        For every wait on the outside world: connecting, a pause, a reply. A send is none of them. After the
        stop there is a moment left: what is there already is taken, and nothing is waited for.
        """
        ...

    def received(self, receive: Callable[[], Awaitable[Result]]) -> AsyncIterator[Result]:
        """Call `receive` again and again and yield what it returns, until the stop.

        Any result counts as life: the idle timeout begins again. After the stop `receive` is called once
        more, so that what has come in by then is not lost. A cancelled `receive` must not lose anything.

        Raises:
            TimeoutError: nothing was received for the idle timeout.
        """
        ...

    async def send(self, payload: Payload_contra) -> None:
        """Pass a payload on to the workers, in the order of the calls; waits while they are behind.

        A stop does not end this wait.
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

        It may open a nursery for its tasks, and waits only as `intake` offers. It returns soon after the
        stop. The feed calls it again after a pause when it has raised or returned before that.

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
    """What a worker made of a chunk."""

    exchange: str
    number: int
    """The chunk's."""
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
    """Of each update its place in the order of receipt. Unique within the boot; mostly a range."""
    timestamps: list[int]
    prices: list[float]


@attrs.frozen
class Flush:
    """What is written to the window in one go. Writing it twice changes nothing."""

    updates: Sequence[Written]
    bars: Sequence[tuple[Pair, Field, Bar]]
    """Absolute values."""


class EncodedFlush(Protocol):
    """A flush in the window's own form, fixed for good: repeated byte for byte."""

    @property
    def size(self) -> int:
        """Bytes that it holds in memory."""
        ...

    def without_bars(self) -> EncodedFlush:
        """Its updates alone: to be written again later, when the bars have gone on."""
        ...


@attrs.frozen
class Edge:
    """What the window's raw updates say of a span of one exchange and symbol."""

    bar: Bar | None
    """The updates within the span; None without any."""
    seconds: Mapping[int, int]
    """How many updates it holds in each whole second (start, ms) that the span touches.

    Compared with the bars of these seconds this shows whether the raw updates are complete.
    """


class Sight(NamedTuple):
    """Who holds the window, and who has written to it."""

    holder: str | None
    """The boot that holds it; None: nobody."""
    marker: str | None
    """`<boot>:<number>` of the last write; None: there was none, or the hold was given back since."""


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
        """Send what was encoded, and wait until all that was posted *before* it is acknowledged.

        So one flush is on its way while the next is being encoded. What is posted is written in that order.
        Returns whether the store still held, at each of the writes that are acknowledged now, the marker of
        the one before: if not, it was emptied, is new, or has come back with an older state, and what was
        written before may be gone; or a write without an answer has found it so. Each write sets it again.

        After StoreAway nothing is on its way any more: what was posted may have been written, or not.
        """
        ...

    async def collect(self) -> bool:
        """Wait until all that was posted is acknowledged. Returns the same."""
        ...

    async def write(self, flush: Any) -> bool:
        """`post` and `collect` in one."""
        ...

    @property
    def met(self) -> Sight:
        """What the writes that were acknowledged last have found.

        Its marker is one of another boot, if one of them has found such a marker instead of ours, else None.
        """
        ...

    async def look(self) -> Sight:
        """Who holds the window, and the marker. Writes nothing."""
        ...

    async def take(self, found: Sight) -> bool:
        """Hold the window, unless the holder has changed since it was `found`; returns whether we do.

        With a holder in it, it is also not taken if the marker has changed. The hold expires 5 s after it was
        taken, or after the last write, each of which renews it. After StoreAway it may have been taken.
        """
        ...

    async def release(self) -> None:
        """Give the hold back, if it is ours, and remove the marker: nobody writes any more."""
        ...

    async def all_bars(self, pairs: Sequence[Pair]) -> Mapping[Pair, FieldBars]:
        """Every bar that the store holds, of all boots. What cannot be read is left out and logged."""
        ...

    async def pairs_with_bars(self) -> Sequence[Pair]:
        """Pairs that the store holds bars of, configured or not, as far as it can tell in bounded time.

        Nothing that looks like a bar but is not of our form makes a pair. Does not raise StoreAway: if this
        cannot be found out, there are none, and it is logged.
        """
        ...

    async def bars(self, fields: Mapping[Pair, Sequence[Field]]) -> Mapping[Pair, FieldBars]:
        """The bars in the given fields; those that the store does not hold are left out."""
        ...

    async def edges(self, pairs: Sequence[Pair], spans: Sequence[Span]) -> Mapping[Pair, Sequence[Edge]]:
        """For each pair an edge for each span."""
        ...

    async def counts(self, spans: Sequence[tuple[Pair, Span]]) -> Sequence[int]:
        """How many updates each pair has within its span; what is not of our form counts as well."""
        ...

    async def prices(self, spans: Sequence[tuple[Pair, Span]]) -> Sequence[Sequence[float]]:
        """The prices that each pair has within its span, in any order; of what is not of our form none."""
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
    """Read back from the store its sequences are 0."""


class AggregateStore(Protocol):
    """Rows of aggregates, in a store that may be away.

    Every awaited method raises StoreAway when the store failed or did not answer in time; all are bounded.
    """

    async def lease(self) -> int:
        """Make sure that we hold the stores: connected, the only service on them, the schema up to date.

        Quick when we do already. Returns a number that changes each time the lock is taken again.

        Raises:
            StoreTaken: another service holds the lock just now. Ask again.
            IntervalMismatch: the rows are of another interval.
            StoreUnfit: there are other reasons that no waiting cures.
        """
        ...

    async def write(self, aggregates: Sequence[Aggregate]) -> None:
        """Insert or replace rows in one transaction; a row is never replaced by one of fewer updates.

        No two of them are of the same interval, exchange and symbol.

        Raises:
            StoreAway: also when the lock is not held.
            RowsRefused: one of them is at fault, or more. We hold the stores as before.
        """
        ...

    async def delete_before(self, end: int) -> int:
        """Delete the oldest of the rows whose end (ms) lies before; returns how many.

        A bounded number of them, and all that end at the same time as the last of these. There may be more as
        long as it is not 0. Raises RowsRefused as well: none was deleted.
        """
        ...

    async def bars(self, pairs: Sequence[Pair], span: Span, width: int) -> Mapping[Pair, Mapping[int, Bar]]:
        """Rows that lie within the span, merged into buckets.

        By the bucket's start (ms); buckets are `width` ms wide and counted from the epoch. Sequences are 0.
        Pairs without rows are left out.
        A row of an interval that is no divisor of `width` falls into the bucket that it starts in.
        """
        ...

    async def skip(
        self, pairs: Sequence[Pair], span: Span, rows: int, *, backwards: bool = False
    ) -> int | None:
        """How far `rows` rows reach: the part of the span up to there (ms) holds as many of one pair.

        Of the pairs the one counts that gets as far first; None if none has more rows than that in the span.
        Backwards it is counted from the span's end, and the part from there on is meant.
        """
        ...

    async def newest(self, pairs: Sequence[Pair]) -> Mapping[Pair, PriceUpdate]:
        """The closing update of the newest row of each pair that has one. Its sequence is 0."""
        ...
