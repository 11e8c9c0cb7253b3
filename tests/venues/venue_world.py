"""The source of a venue against the fake venue, over streams in memory and on a virtual clock.

All of both is there but the sockets: limits, handshakes, frames, the venue, its codec, the sieve for trades
that come again, and a feed that connects again. The fake knows nothing of the modules that read venues.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
import trio.testing
from venue_forms import Seen, is_trade, trades
from websockets.protocol import State

from marketflow.adapters.exchange.checks import Checks
from marketflow.adapters.exchange.fake_venues.connection import Connection
from marketflow.adapters.exchange.fake_venues.duties import duties
from marketflow.adapters.exchange.fake_venues.faults import GARBAGE, Faults
from marketflow.adapters.exchange.fake_venues.floor import Floor, new_floor
from marketflow.adapters.exchange.fake_venues.frames import pieces
from marketflow.adapters.exchange.fake_venues.handshake import shake_hands
from marketflow.adapters.exchange.fake_venues.orders import Orders
from marketflow.adapters.exchange.fake_venues.trades import Trade
from marketflow.adapters.exchange.venues.registry import VENUES
from marketflow.adapters.exchange.websocket.budget import Budget
from marketflow.adapters.exchange.websocket.codec import VenueDecoder
from marketflow.adapters.exchange.websocket.opening import Opener
from marketflow.adapters.exchange.websocket.source import WebSocketSource
from marketflow.app.ingest.backoff import Backoff
from marketflow.app.ingest.feeds import Feed
from marketflow.app.ports import Batch
from marketflow.app.share.trades import Trades

START = 1_795_343_351_549
GONE = (trio.BrokenResourceError, trio.ClosedResourceError)
LIMIT = 500.0
"""Seconds of the virtual clock."""


class VirtualClock:
    """A wall clock that goes with Trio's. `ahead`: how far it is ahead (ms)."""

    def __init__(self) -> None:
        self.ahead = 0

    def now(self) -> int:
        return START + self.ahead + int(trio.current_time() * 1_000)


class Recorded(Connection):
    """Notes every message that it sends."""

    log: list[bytes]
    side: Side

    def send(self, message: bytes, *, pong: bool = False) -> None:
        """Answers may come later than usual."""
        is_answer = not pong and self.pulse.greeted and not is_trade(self.side.floor.kind.name, message)
        if self.side.answers_after and is_answer:
            self.side.nursery.start_soon(self._send_later, message, self.side.answers_after)
        else:
            super().send(message, pong=pong)

    async def _send_later(self, message: bytes, seconds: float) -> None:
        await trio.sleep(seconds)
        super().send(message)

    def _encode(self, message: bytes) -> None:
        self.log.append(message)
        super()._encode(message)

    def say(self, message: bytes, form: str = "text") -> None:
        """Send a message as frames of a form, also if the venue is mute."""
        protocol = self._protocol
        if protocol.state is not State.OPEN:
            return
        self.log.append(message)
        if form == "text":
            protocol.send_text(message)
        elif form == "binary":
            protocol.send_binary(message)
        else:
            first, *others = pieces(message, 4) or [b""]
            protocol.send_text(first, fin=not others)
            for number, piece in enumerate(others, 1):
                if form == "fragments and pings":
                    protocol.send_ping(b"%d" % number)
                protocol.send_continuation(piece, fin=number == len(others))
        self._flush()


@attrs.define(eq=False)
class Side:
    """The venue's side: serves connections, and keeps what was sent on each."""

    floor: Floor
    nursery: trio.Nursery
    rng: random.Random | None
    """Cuts what is sent into pieces; None: nothing is cut."""
    logs: list[list[bytes]] = attrs.field(factory=list)
    """For each connection the messages, in their order."""
    opened: list[Recorded] = attrs.field(factory=list)
    """All connections so far."""
    attempts: list[float] = attrs.field(factory=list)
    answers_after: float = 0.0
    """Seconds by which all but trades and pongs are late."""

    async def connect(self, _host: str, _port: int) -> trio.abc.Stream:
        """For `Opener.connect`."""
        await trio.lowlevel.checkpoint()
        self.attempts.append(trio.current_time())
        ours, theirs = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self._serve, theirs)
        return ours

    async def _serve(self, stream: trio.abc.Stream) -> None:
        floor = self.floor
        try:
            if floor.faults.mute == "all":
                await trio.sleep_forever()
            opened = await shake_hands(stream, floor)
            if opened is not None:
                protocol, session = opened
                connection = Recorded(floor, session, protocol)
                connection.log, connection.side = [], self
                self.logs.append(connection.log)
                self.opened.append(connection)
                await self._talk(stream, connection)
        except GONE:
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def _talk(self, stream: trio.abc.Stream, connection: Recorded) -> None:
        self.floor.connections.append(connection)
        if not self.floor.kind.rules.greets_after:
            connection.greet()
        try:
            with connection.outbox.dropped:
                async with trio.open_nursery() as nursery:
                    for duty in duties(connection, self.floor):
                        nursery.start_soon(duty)
                    nursery.start_soon(self._read, stream, connection)
                    await self._write(stream, connection)
                    nursery.cancel_scope.cancel()
        except* GONE:
            pass
        finally:
            self.floor.connections.remove(connection)

    async def _read(self, stream: trio.abc.Stream, connection: Recorded) -> None:
        while data := await stream.receive_some(65_536):
            connection.receive(bytes(data))
        connection.receive(b"")

    async def _write(self, stream: trio.abc.Stream, connection: Recorded) -> None:
        while data := await connection.outbox.take():
            while data:
                size = len(data) if self.rng is None else self.rng.choice((1, 2, 3, 7, 60, 400, len(data)))
                await stream.send_all(data[:size])
                data = data[size:]
                if self.rng is not None and self.rng.random() < 0.5:
                    await trio.testing.wait_all_tasks_blocked()


@attrs.define(eq=False)
class World(Orders):
    """Both sides, and what the service has made of it."""

    side: Side
    source: WebSocketSource
    feed: Feed
    clock: VirtualClock
    stopping: trio.Event = attrs.field(factory=trio.Event)
    rows: list[tuple[Any, ...]] = attrs.field(factory=list)
    """Symbol, id, time, price, volume and side of each trade, in the order of their being taken in."""
    rejected: Counter[str] = attrs.field(factory=Counter)
    received: int = 0
    sieve: Trades = attrs.field(factory=lambda: Trades("exchange1"))

    def __attrs_post_init__(self) -> None:
        Orders.__init__(self, self.side.floor)

    @property
    def connections(self) -> Sequence[Recorded]:
        """Those that are open."""
        return [each for each in self.side.opened if each in self._floor.connections]

    @property
    def floor(self) -> Floor:
        """What all connections of the venue have in common."""
        return self._floor

    @property
    def violations(self) -> Sequence[str]:
        return self._floor.violations

    @property
    def kind(self) -> str:
        return self._floor.kind.name

    def made(self, count: int = 1, symbol: str | None = None) -> Sequence[Trade]:
        """Trades of one pair, or of those that have been subscribed to. They are not sent."""
        return self._floor.market.trade(count, symbol)

    def messages(self, made: Sequence[Trade], connection: Recorded) -> Sequence[bytes]:
        """The messages that report trades to a connection, as far as it has subscribed to them."""
        kind = self._floor.kind
        found = kind.messages(made, kind.variant(connection.session))
        return [message for symbol, message in found if symbol in connection.session.subscribed]

    def send(self, made: Sequence[Trade], form: Callable[[], str] = lambda: "text") -> None:
        """Send trades on all connections."""
        for connection in self.connections:
            for message in self.messages(made, connection):
                connection.say(message, form())

    def take(self, batch: Batch) -> None:
        """Count what has come."""
        assert batch.identity is not None
        found = self.sieve.sifted(batch, batch.identity)
        self.received += found.received
        self.rejected.update(found.rejected)
        assert found.received == found.accepted + sum(found.rejected.values())
        for symbol, columns, _ in found.updates:
            none = [None] * len(columns)
            self.rows += zip(
                [symbol] * len(columns),
                columns.ids or none,
                columns.timestamps,
                columns.prices,
                columns.volumes or none,
                columns.sides or none,
                strict=True,
            )

    def seen(self) -> Sequence[Seen]:
        """All trades that were sent, by the tests' own reading of the messages."""
        found: list[Seen] = []
        for log in self.side.logs:
            channels: dict[int, str] = {}
            for message in log:
                if b'"chanId"' in message and b'"subscribed"' in message:
                    answer = json.loads(message)
                    channels[answer["chanId"]] = answer["symbol"]
                if is_message(self.kind, message) and message not in GARBAGE and is_trade(self.kind, message):
                    found += trades(self.kind, message, channels)
        return found

    async def until(
        self, condition: Callable[[], object], seconds: float = LIMIT, *, every: float = 0.02
    ) -> None:
        """Wait for something, and look so often (seconds)."""
        with trio.fail_after(seconds):
            while not condition():  # noqa: ASYNC110 - a test polls
                await trio.sleep(every)

    async def live(self, connections: int = 1) -> None:
        """Wait until the source has its subscriptions, on the connection of that number at least."""
        await self.until(
            lambda: (
                self.source.activity == "live"
                and self.feed.connected
                and len(self.side.opened) >= connections
            )
        )


def is_message(kind: str, message: bytes) -> bool:
    """Whether it is one that a venue may send: JSON without NaN, and mostly an object."""
    try:
        value = json.loads(message, parse_constant=no_number)
    except (ValueError, RecursionError):
        return kind == "okx" and message == b"pong"
    is_array = isinstance(value, list) and len(value) > 1
    return isinstance(value, dict) or (kind == "bitfinex" and is_array)


def no_number(text: str) -> None:
    raise ValueError(text)


def ours(symbol: str) -> str:
    """A venue's symbol as the service spells it here."""
    return "".join(filter(str.isalnum, symbol)).upper()


@asynccontextmanager
async def running(
    kind: str,
    symbols: Sequence[str],
    *,
    listed: Sequence[str] | None = None,
    faults: Faults | None = None,
    rng: random.Random | None = None,
    budget: Budget | None = None,
    ahead: int = 0,
    floor: Floor | None = None,
) -> AsyncIterator[World]:
    """Runs until the end of the block, and stops then.

    Args:
        kind: of the venue.
        symbols: what the service asks for, in the venue's spelling.
        listed: what the venue has; None: these.
        faults: of the venue.
        rng: cuts what is sent into pieces.
        budget: of the address.
        ahead: how far the clock of the service is ahead of the venue's (ms).
        floor: the venue, if it is there already.
    """
    venue, clock = VENUES[kind], VirtualClock()
    names = {symbol: ours(symbol) for symbol in symbols}
    venues_clock = VirtualClock()
    clock.ahead = ahead
    if floor is None:
        has = symbols if listed is None else listed
        floor = new_floor(kind, has, 1, faults or Faults(), venues_clock, None)
    async with trio.open_nursery() as nursery:
        side = Side(floor, nursery, rng)
        entropy = random.Random(1)
        source = WebSocketSource(
            "exchange1",
            venue,
            names,
            VenueDecoder(venue, names, Checks(frozenset(names.values()), 60_000, 120_000)),
            opener=Opener(connect=side.connect),
            budget=Budget.of(venue.rules) if budget is None else budget,
            clock=clock,
            entropy=entropy,
            url=floor.kind.url("venue.test", secure=False),
        )
        least, most = source.pauses
        feed = Feed(
            source,
            backoff=Backoff(least, most, entropy, floor=least),
            idle_timeout=math.inf,
            last_well=lambda: source.well_at,
        )
        world = World(side, source, feed, clock)
        send, receive = trio.open_memory_channel[Any](math.inf)

        async def work() -> None:
            async for chunk in receive:
                payload = chunk.payload
                found = feed.decode(payload)
                world.take(
                    Batch(
                        exchange=chunk.exchange,
                        number=chunk.number,
                        received=found.received,
                        rejected=found.rejected,
                        updates=found.updates,
                        received_at=payload.received_at,
                        received_monotonic=payload.received_monotonic,
                        ignored_volumes=found.ignored_volumes,
                        identity=found.identity,
                    )
                )

        nursery.start_soon(work)
        nursery.start_soon(feed.run, send, world.stopping)
        yield world
        world.stopping.set()
        await world.until(lambda: feed.state.state == "stopped", 5)
        assert feed.bugs == 0
        nursery.cancel_scope.cancel()
