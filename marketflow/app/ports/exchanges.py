"""The ports for exchanges: a source sends payloads, its codec turns each into updates."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import trio

from marketflow.domain.bars import Bar
from marketflow.domain.columns import Columns

OUTAGES: Final = (OSError, trio.BrokenResourceError, trio.TooSlowError)
"""Errors by which a source says that its exchange is away. The last two are what Trio's streams and time
limits raise in the tasks of a source. Any other error is a bug of the source."""


class Updates(NamedTuple):
    """Accepted updates of one exchange and symbol as columns, in the order of receipt."""

    symbol: str
    columns: Columns
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


class Identity(NamedTuple):
    """What the ids of an exchange's trades are good for."""

    asked_at: int
    """When this connection has asked for trades (Unix ms). Older ones may be sent again then."""
    contiguous: bool = False
    """Whether the ids of a symbol's trades are whole numbers without gaps."""
    others: Mapping[str, Sequence[str]] | None = None
    """By symbol the ids of trades that came and were not accepted, if ids are contiguous."""
    ignored: Mapping[str, Collection[int]] | None = None
    """By symbol the places, among its updates, of trades that told a volume which does not count."""


class Decoded(NamedTuple):
    """What a codec found in a payload."""

    received: int
    """Messages that stand for an update, good or bad; heartbeats and the like are none.
    Equals the rejected plus the accepted."""
    rejected: Mapping[str, int]
    """How many were rejected, by reason; only reasons that occurred."""
    updates: Sequence[Updates]
    """One for each symbol that occurred."""
    ignored_volumes: int = 0
    """How many accepted updates told a volume that does not count."""
    identity: Identity | None = None
    """If the updates have ids. Each id is then taken in once."""

    @property
    def accepted(self) -> int:
        """How many updates it holds."""
        return sum(len(updates.columns) for updates in self.updates)


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

    async def forward(self, receive: Callable[[], Awaitable[Payload_contra | None]]) -> None:
        """Call `receive` again and again and send what it returns, until the stop.

        The same as a loop over `received` that sends each payload. But it makes a time limit only now and
        then and not for each receive, which would cost as much as several updates. `receive` returns None if
        it has received something that is no payload.

        Raises:
            TimeoutError: nothing was received for the idle timeout.
        """
        ...

    async def send(self, payload: Payload_contra) -> None:
        """Pass a payload on to the workers, in the order of the calls. It waits while the workers are behind.

        If they are not, it returns at once, and other tasks get no turn.
        A stop does not end this wait. If the source cancels it, the feed still passes the payload on.
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
            OSError: no connection could be made, or it ended. From several tasks it may be a group. Each of
                `OUTAGES` means this.
            Exception: anything else is a bug of the source. It costs this connection only.
        """
        ...


@runtime_checkable
class VenueSource(Source[AnyPayload], Protocol):
    """The source of a venue. It says more of itself than others. Times in seconds."""

    @property
    def kind(self) -> str:
        """The venue's kind in the configuration."""
        ...

    @property
    def symbols(self) -> Mapping[str, str]:
        """Our symbols that it is asked for, with the venue's spelling."""
        ...

    @property
    def pauses(self) -> tuple[float, float]:
        """The shortest and the longest pause before it is run again."""
        ...

    @property
    def silence(self) -> float:
        """A connection on which nothing came for so long is dead, by the venue's own rule."""
        ...

    @property
    def heard_at(self) -> float | None:
        """When there was the last sign of life, in Trio's clock; None before the first."""
        ...

    @property
    def well_at(self) -> float | None:
        """The same while it had its subscriptions. A venue that is quiet is well nevertheless."""
        ...

    @property
    def subscribed(self) -> bool:
        """Whether the venue has decided on all subscriptions of the present connection."""
        ...

    @property
    def activity(self) -> str:
        """What it is doing, in a few words."""
        ...

    @property
    def rejected_symbols(self) -> Mapping[str, str]:
        """Those of our symbols that the venue has refused, with its reason."""
        ...


class Chunk(NamedTuple, Generic[AnyPayload]):
    """A payload on its way to a worker."""

    exchange: str
    number: int
    """Counts the exchange's chunks of this boot from 0, without gaps."""
    payload: AnyPayload


class Batch(NamedTuple):
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
    ignored_volumes: int = 0
    """As in `Decoded`."""
    identity: Identity | None = None
    """As in `Decoded`."""

    @property
    def accepted(self) -> int:
        """How many updates it holds."""
        return sum([len(updates.columns.prices) for updates in self.updates])

    def sifted(
        self, updates: Sequence[Updates], rejected: Mapping[str, int], *, ignored_volumes: int
    ) -> Batch:
        """The same chunk with these updates; the others are among the rejected."""
        return self._replace(updates=updates, rejected=rejected, ignored_volumes=ignored_volumes)
