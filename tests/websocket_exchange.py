"""An exchange that sends WebSocket messages, for tests: its venue, and the other side of its connections.

It works over any stream of Trio. Messages are JSON objects:

    {"ask": ["btc-usd"], "id": 1}                        a subscription; {"ping": 2} is a ping
    {"yes": ["btc-usd"], "id": 1}                        its answer; or {"no": reason, "for": [...], "id": 1}
    {"trades": [["btc-usd", 100.5, 1795343351549, 7]]}   symbol, price, Unix ms, id
    {"welcome": true}  {"leave": reason}  {"notice": text}  {"alive": true}
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import attrs
import msgspec
import trio
from websockets.exceptions import InvalidState
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from marketflow.adapters.exchange.venues.venue import (
    ALIVE,
    WELCOME,
    Endpoint,
    Found,
    Leave,
    Notice,
    Rate,
    Rejected,
    Rules,
    Subscribed,
    Trade,
    Trades,
    Venue,
)

RULES = Rules(attempts=Rate(100, 1.0), requests=Rate(100, 1.0), batch=10, symbols=1_000, silence=30.0)
GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


class PlainVenue(Venue):
    """The venue of this exchange."""

    kind = "plain"
    url = "ws://exchange.test/stream"
    rules = RULES

    def __init__(self, **changes: object) -> None:
        """`changes` of the rules."""
        self.rules = attrs.evolve(RULES, **changes)

    def subscribe(self, symbols, request, now):
        return json.dumps({"ask": symbols, "id": request, "now": now}).encode()

    def ping(self, request, _now):
        return json.dumps({"ping": request}).encode()

    def endpoint(self, answer, _connection):
        try:
            return Endpoint(**{"ping_every": None, "silence": None} | json.loads(answer))
        except (ValueError, TypeError) as error:
            raise ValueError("not an endpoint") from error

    def read(self, frame):  # noqa: PLR0911 - a table
        if b'"trades"' in frame:
            return Trades(frame)
        match json.loads(frame):
            case {"welcome": True}:
                return WELCOME
            case {"leave": reason}:
                return Leave(reason)
            case {"notice": text}:
                return Notice(text)
            case {"yes": symbols, "id": number}:
                return Subscribed(tuple(symbols), number)
            case {"no": reason, "for": symbols, "id": number}:
                return Rejected(reason, tuple(symbols), number)
        return ALIVE

    def trades(self, body):
        found = []
        malformed = 0
        for each in msgspec.json.decode(body)["trades"]:
            match each:
                case [symbol, price, timestamp, number]:
                    found.append(Trade(symbol, price, timestamp, msgspec.UNSET, None, number))
                case _:
                    malformed += 1
        return Found(found, malformed)


class TokenVenue(PlainVenue):
    """Gives its endpoint as the answer to a POST."""

    kind = "token"
    token_path = "/token"  # noqa: S105 - not a secret


def accepts(peer: Peer, message: dict) -> Sequence[dict]:
    """Accepts all symbols, naming only the request."""
    return [{"yes": [], "id": message["id"]}] if "ask" in message else []


def silent(_peer: Peer, _message: dict) -> Sequence[dict]:
    """Answers nothing."""
    return []


@attrs.define(eq=False)
class Peer:
    """The exchange's side of one connection."""

    stream: trio.abc.Stream
    answers: Callable[[Peer, dict], Sequence[dict]] = accepts
    greetings: Sequence[dict] = ()
    protocol: ServerProtocol = attrs.field(
        factory=lambda: ServerProtocol(extensions=[ServerPerMessageDeflateFactory()])
    )
    request: Request | None = None
    received: list[dict] = attrs.field(factory=list)
    times: list[float] = attrs.field(factory=list)
    """When each message, pong or close was received."""
    pongs: list[bytes] = attrs.field(factory=list)
    last_words: bytes = b""
    """A message that is on its way when the client closes."""
    gone: bool = False
    """Whether the client has left."""
    lock: trio.Lock = attrs.field(factory=trio.Lock)

    @property
    def asked(self) -> list[str]:
        return [symbol for message in self.received for symbol in message.get("ask", ())]

    @property
    def close_code(self) -> int | None:
        """With which code the client has closed."""
        closed = self.protocol.close_rcvd
        return None if closed is None else closed.code

    async def run(self) -> None:
        """Serve until the client has left."""
        try:
            while data := await self.stream.receive_some(65_536):
                self.protocol.receive_data(data)
                for event in self.protocol.events_received():
                    await self.take(event)
                await self.flush()
        except GONE:
            pass
        finally:
            self.gone = True
            await trio.aclose_forcefully(self.stream)

    async def take(self, event) -> None:
        match event:
            case Request():
                self.request = event
                self.protocol.send_response(self.protocol.accept(event))
                await self.say(*self.greetings)
            case Frame(opcode=Opcode.TEXT):
                self.times.append(trio.current_time())
                self.received.append(json.loads(event.data))
                for answer in self.answers(self, self.received[-1]):
                    await self.say(answer)
            case Frame(opcode=Opcode.CLOSE) if self.last_words:
                frame = Frame(Opcode.TEXT, self.last_words)
                await self.stream.send_all(frame.serialize(mask=False, extensions=self.protocol.extensions))
            case Frame(opcode=Opcode.PONG):
                self.times.append(trio.current_time())
                self.pongs.append(bytes(event.data))

    async def say(self, *messages: dict | bytes) -> None:
        """Send messages in one piece."""
        for message in messages:
            data = message if isinstance(message, bytes) else json.dumps(message).encode()
            with suppress(InvalidState):
                self.protocol.send_text(data)
        await self.flush()

    async def ping(self, data: bytes = b"") -> None:
        self.protocol.send_ping(data)
        await self.flush()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self.protocol.send_close(code, reason)
        await self.flush()

    async def flush(self) -> None:
        async with self.lock:
            writes = self.protocol.data_to_send()
            with suppress(*GONE):
                await self.stream.send_all(b"".join(writes))
                if writes and self.protocol.state is not State.OPEN and not writes[-1]:
                    await self.stream.aclose()


@attrs.define(eq=False)
class Exchange:
    """Serves connections. Settings concern those that are made from then on."""

    nursery: trio.Nursery
    answers: Callable[[Peer, dict], Sequence[dict]] = accepts
    greetings: Sequence[dict] = ()
    """Sent with the answer to the handshake."""
    refused: deque[OSError] = attrs.field(factory=deque)
    """Errors for the next attempts."""
    peers: list[Peer] = attrs.field(factory=list)
    attempts: list[float] = attrs.field(factory=list)
    """When clients have tried."""

    async def connect(self, _host: str, _port: int) -> trio.abc.Stream:
        """A connection in memory; for `Opener.connect`."""
        await trio.lowlevel.checkpoint()
        self.attempts.append(trio.current_time())
        if self.refused:
            raise self.refused.popleft()
        ours, theirs = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self.serve, theirs)
        return ours

    async def serve(self, stream: trio.abc.Stream) -> None:
        peer = Peer(stream, self.answers, self.greetings)
        self.peers.append(peer)
        await peer.run()
