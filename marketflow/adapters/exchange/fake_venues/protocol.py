"""What a kind of venue is: how it answers, how it writes a trade, its limits and its heartbeats. No I/O."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import attrs
import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from marketflow.adapters.exchange.fake_venues.trades import Market, Trade


class Rate(NamedTuple):
    """At most so many events within any span of so many seconds."""

    most: int
    seconds: float


@attrs.frozen(kw_only=True)
class Rules:
    """The limits of a venue. Times are in seconds; None: it has no such limit.

    A client that breaks one is disconnected, or refused, and a violation is recorded.
    """

    path: str
    """The only path at which it takes connections."""
    attempts: Rate | None = None
    """Connections from one address; others are refused with 429."""
    attempts_after_notice: Rate | None = None
    """The same after it has announced a maintenance."""
    messages: Rate | None = None
    """Messages on a connection."""
    control_frames_count: bool = False
    """Whether pings and pongs of the WebSocket protocol are such messages."""
    subscriptions: Rate | None = None
    """Messages on a connection that are not pings."""
    requests_of_address: Rate | None = None
    """Messages of all connections together."""
    batch: int | None = None
    """Symbols in one request."""
    symbols: int | None = None
    """Symbols on one connection."""
    greets_after: float = 0.0
    """It sends its greeting so long after the connection was made, and takes no message before that."""
    subscribe_within: float | None = None
    """A connection must subscribe to something within this time."""
    pings_every: float | None = None
    """It sends a ping of the WebSocket protocol this often."""
    pong_within: float | None = None
    """A connection without a pong for this long is cut."""
    idle: float | None = None
    """A connection is cut on which nothing was sent for this long, and from which nothing came."""
    client_pings_within: float | None = None
    """A connection is cut from which no ping of the venue's own form came for this long."""
    heartbeat: float | None = None
    """It sends heartbeats this often."""
    heartbeats_when_quiet: bool = False
    """Whether heartbeats come only while there are no other messages."""
    lifetime: float | None = None
    """A connection is cut after this long. This is no violation."""
    policy_code: int = 1008
    """The close code for a broken rule."""


@attrs.define
class Session:
    """What a venue knows of one connection."""

    number: int
    """From 1 on."""
    query: Mapping[str, str]
    """The parameters of its URL."""
    subscribed: dict[str, None] = attrs.field(factory=dict)
    """The symbols whose trades it gets, in the order of subscription."""
    heartbeats: dict[str, None] = attrs.field(factory=dict)
    """The symbols whose heartbeats it gets, where a venue has a heartbeat for each."""

    @property
    def id(self) -> str:
        """A name of the connection, as venues write it."""
        return f"{self.number:08x}"


@attrs.frozen(kw_only=True)
class Answer:
    """What a venue does about a message."""

    messages: Sequence[bytes] = ()
    subscribe: Sequence[str] = ()
    """Symbols whose trades the connection gets from now on."""
    unsubscribe: Sequence[str] = ()
    ping: bool = False
    """Whether the message was a ping, and the answer is a pong."""
    violation: str | None = None
    """The rule that the message breaks, if the answer already tells the client so."""


class Kind(ABC):
    """A kind of venue. Each fake venue has an instance of its own. Times are Unix nanoseconds."""

    name: ClassVar[str]
    rules: ClassVar[Rules]
    usual: ClassVar[Sequence[str]]
    """Some symbols in its spelling."""

    def symbol(self, given: str) -> str:
        """A symbol in the spelling that trades have."""
        return given

    def url(self, address: str, *, secure: bool) -> str:
        """What a client is configured with. `address` is host and port."""
        return f"{'wss' if secure else 'ws'}://{address}{self.rules.path}"

    def post(self, path: str, address: str, *, secure: bool) -> bytes | None:  # noqa: ARG002
        """The answer to an HTTP POST; None: there is nothing at that path."""
        return None

    def refusal(self, query: Mapping[str, str]) -> str | None:  # noqa: ARG002
        """Why a connection with these parameters is refused with 401; None: it is not."""
        return None

    def greeting(self, session: Session, now: int) -> Sequence[bytes]:  # noqa: ARG002
        """The first messages on a connection."""
        return ()

    @abstractmethod
    def answer(self, message: bytes, session: Session, market: Market, now: int) -> Answer:
        """What it does about a message of a client."""

    def variant(self, session: Session) -> str:  # noqa: ARG002
        """The form of the trades on a connection, if there are several."""
        return ""

    @abstractmethod
    def messages(self, trades: Sequence[Trade], variant: str) -> Sequence[tuple[str, bytes]]:
        """The messages that report trades, each with its symbol."""

    def heartbeats(self, session: Session, market: Market, now: int) -> Sequence[bytes]:  # noqa: ARG002
        """The heartbeats that are due on a connection."""
        return ()

    def notice(self, now: int) -> bytes | None:  # noqa: ARG002
        """The announcement of a maintenance; None: it announces none."""
        return None


# ---- what kinds have in common ----


def accepted(messages: Sequence[bytes], symbols: Sequence[str], *, leaves: bool) -> Answer:
    """The answer to a good request. `leaves`: it unsubscribes from the symbols, instead of subscribing."""
    if leaves:
        return Answer(messages=messages, unsubscribe=symbols)
    return Answer(messages=messages, subscribe=symbols)


def decoded(message: bytes) -> dict[str, Any] | None:
    """A message as a JSON object; None if it is none."""
    try:
        value = msgspec.json.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def encoded(**fields: Any) -> bytes:
    """A JSON object. Fields that are None are left out."""
    return msgspec.json.encode({name: value for name, value in fields.items() if value is not None})


def texts(value: object) -> list[str] | None:
    """A list of texts; None if the value is none."""
    good = isinstance(value, list) and all(isinstance(each, str) for each in value)
    return list(value) if good else None  # type: ignore[call-overload]


def by_symbol(trades: Sequence[Trade]) -> Mapping[str, list[Trade]]:
    """The trades of each symbol."""
    found: dict[str, list[Trade]] = {}
    for trade in trades:
        found.setdefault(trade.symbol, []).append(trade)
    return found


def iso(time: int) -> str:
    """A time (Unix nanoseconds) in ISO 8601 with microseconds."""
    seconds, rest = divmod(time, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1_000:06d}Z"
