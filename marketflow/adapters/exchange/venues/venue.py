"""What a venue is: a kind of real exchange with its own protocol, as values and pure functions. No I/O.

A venue says where to connect, what to send, what a frame means, and which limits hold. It knows symbols in
its own spelling only. The source of WebSockets (`marketflow.adapters.exchange.websocket`) does the rest, the
same for all venues: connections, batches of subscriptions, pings, limits, back-off.

```
 frame ──read──┬─> Trades ──> a chunk ──> a worker, which decodes it with `trades`
               └─> Welcome, Subscribed, Rejected, Notice, Leave, ALIVE ──> the connection's own task
```
`docs/adding-a-venue.md` shows how to write one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final, Literal, NamedTuple

import attrs
import msgspec

from marketflow.adapters.exchange.checks import Quotes


class Trade(msgspec.Struct, gc=False):
    """One trade of a frame; its price need not be acceptable. Implements `Quote`."""

    symbol: str
    """In the venue's spelling; its codec replaces it by ours."""
    price: float
    """A finite number."""
    timestamp: int
    """When it was made, by the venue's clock: Unix ms."""
    volume: object
    """In the base currency, a float; anything else does not count as a volume."""
    side: object
    """The taker's: "buy" or "sell"; None if the venue did not tell it."""
    id: int | str
    """The venue's own id of the trade, unique within the symbol. A number where the venue writes one, also as
    text."""


class Found(msgspec.Struct, frozen=True, gc=False):
    """The trades of a frame. Like `Trades` a Struct, which is faster to make than a named tuple."""

    trades: Sequence[Trade]
    """In the order of the frame."""
    malformed: int = 0
    """How many others could not be read."""

    def __iter__(self) -> Iterator[Any]:
        return iter((self.trades, self.malformed))


# ---- what a frame means ----


class Trades(msgspec.Struct, frozen=True, gc=False):
    """The frame has trades."""

    body: bytes
    """What `trades` will decode: the frame, or what the venue made of it."""


class Welcome(NamedTuple):
    """The venue takes requests from now on."""


class Subscribed(NamedTuple):
    """The venue has accepted a request."""

    symbols: tuple[str, ...] = ()
    """Those that it names; none: all of the request."""
    request: int | None = None
    """The number of the request, if the answer has it."""
    others_refused: bool = False
    """Whether it has refused the request because it had accepted these symbols before."""


class Rejected(NamedTuple):
    """The venue has refused a request."""

    reason: str
    """In its own words."""
    symbols: tuple[str, ...] = ()
    """Those that it names; none: it may be any of the request."""
    request: int | None = None
    """The number of the request, if the answer has it."""


class Notice(NamedTuple):
    """The venue reports something that changes nothing, such as an error that names no request."""

    text: str


class Leave(NamedTuple):
    """The venue will soon end the connection: another one is to be made before that."""

    reason: str


class Alive(NamedTuple):
    """A heartbeat, a pong, or anything else that only shows that the connection lives."""


ALIVE: Final = Alive()
WELCOME: Final = Welcome()
Meaning = Trades | Welcome | Subscribed | Rejected | Notice | Leave | Alive


# ---- the rules ----


class Rate(NamedTuple):
    """At most so many events within any span of so many seconds."""

    most: int
    seconds: float


@attrs.frozen(kw_only=True)
class Rules:
    """The limits of a venue. Times in seconds. Where it allows more, these are what we use of it."""

    attempts: Rate
    """Connections that are tried, from one address."""
    requests: Rate
    """Messages that we send on a connection."""
    requests_by_address: bool = False
    """Whether it counts those of all connections from an address together."""
    pongs_are_requests: bool = False
    """Whether our answers to its WebSocket pings count as such messages."""
    batch: int
    """Symbols in one request."""
    symbols: int
    """Symbols on one connection."""
    waits_for_welcome: bool = False
    """Whether requests are sent only after its `Welcome`."""
    rejects_all: bool = False
    """Whether a request fails as a whole if it refuses one of its symbols."""
    lifetime: float | None = None
    """After so long the venue ends a connection; None: it does not."""
    ping_every: float | None = None
    """How often `ping` is sent; None: never."""
    silence: float
    """A connection on which nothing came for so long is dead: more than two heartbeats of the venue."""
    pings_show_life: bool = False
    """Whether its WebSocket pings are its heartbeat. If not, only messages show life."""
    least_pause: float = 1.0
    """The shortest pause before a connection is tried again."""
    most_pause: float = 60.0
    """The longest such pause."""


class Endpoint(NamedTuple):
    """Where to connect, and what the venue says of that connection. Times in seconds."""

    url: str
    ping_every: float | None = None
    """Replaces that of the rules."""
    silence: float | None = None
    """Replaces that of the rules."""


class Venue(ABC):
    """A kind of real exchange. Its methods are pure functions of their arguments and of what came before.

    Frames are text messages as UTF-8. No method of it raises for anything that a venue may send.
    """

    kind: ClassVar[str]
    """Its name in the configuration."""
    url: ClassVar[str]
    """Where it listens. For a venue with a token: where the token is asked for (see `token_path`)."""
    rules: ClassVar[Rules]
    letters: ClassVar[Literal["upper", "lower"] | None] = None
    """Given if its symbols are the letters of ours and nothing else: whether they are upper or lower case."""
    contiguous_ids: ClassVar[bool] = False
    """Whether the ids of a symbol's trades are whole numbers without gaps."""
    token_path: ClassVar[str | None] = None
    """If given, each connection begins with a POST to this path at `url`, answered by an endpoint."""

    def spelling(self, symbol: str) -> str | None:
        """Its spelling of a symbol of ours; None if that is open to doubt."""
        return None if self.letters is None else self.canonical(symbol)

    def canonical(self, symbol: str) -> str:
        """The form of a configured symbol that requests and trades have."""
        match self.letters:
            case "upper":
                return symbol.upper()
            case "lower":
                return symbol.lower()
        return symbol

    def endpoint(self, answer: bytes, connection: str) -> Endpoint:
        """The endpoint in the answer to the POST. `connection` is a unique name for the connection.

        Raises:
            ValueError: there is none in it. Only a venue with a `token_path` is asked.
        """
        raise NotImplementedError

    def for_connection(self) -> Venue:
        """The venue as one connection uses it: itself, if no frame depends on those before it."""
        return self

    @abstractmethod
    def subscribe(self, symbols: Sequence[str], request: int, now: int) -> bytes:
        """The message that asks for the trades of some symbols.

        Args:
            symbols: at most `rules.batch`.
            request: its number, for the answer; from 1 on, other for each message of a connection.
            now: Unix ms.
        """

    def ping(self, request: int, now: int) -> bytes:
        """The message that is sent every `rules.ping_every`. Arguments as in `subscribe`."""
        raise NotImplementedError

    def only_trades(self, frames: Sequence[bytes]) -> bool:  # noqa: ARG002
        """Whether all these frames surely are `Trades`, and their own bodies. It saves time."""
        return False

    @abstractmethod
    def read(self, frame: bytes) -> Meaning:
        """What a frame means."""

    @abstractmethod
    def trades(self, body: bytes) -> Found:
        """The trades in the body of `Trades`."""

    def together(self, bodies: Sequence[bytes]) -> Sequence[Quotes] | None:  # noqa: ARG002
        """The trades in some bodies, by symbol in the venue's spelling and in their order.

        It saves time, and finds the same as `trades`. None if one of the bodies has to be decoded by itself.
        """
        return None
