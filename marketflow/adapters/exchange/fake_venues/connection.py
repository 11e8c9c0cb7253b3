"""One connection of a fake venue: messages in and out, and the rules about messages. No I/O of its own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import attrs
import trio
from websockets.frames import Frame, Opcode
from websockets.protocol import SEND_EOF, State

from marketflow.adapters.exchange.fake_venues.frames import pieces, text_frame
from marketflow.adapters.exchange.fake_venues.limits import Window
from marketflow.adapters.exchange.fake_venues.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Sequence

    from websockets.server import ServerProtocol

    from marketflow.adapters.exchange.fake_venues.floor import Floor
    from marketflow.adapters.exchange.fake_venues.protocol import Answer, Session

MOST_REASON: Final = 120
"""Bytes of the reason in a close frame; the protocol allows 123."""


@attrs.define
class Pulse:
    """When something last happened on a connection: seconds of Trio's clock."""

    began: float
    sent: float
    """A message was sent."""
    heard: float
    """A message came."""
    pinged: float
    """A ping of the venue's own form came."""
    ponged: float
    """A pong of the WebSocket protocol came."""
    greeted: bool = False
    """Whether the venue has sent its greeting."""
    subscribed: bool = False
    """Whether the client has ever subscribed to something."""
    closing: trio.Event = attrs.field(factory=trio.Event)
    """Set when the venue has begun to close the connection."""
    announced: trio.Event = attrs.field(factory=trio.Event)
    """Set when the venue has announced a maintenance."""
    cut_at: float = math.inf
    """When the connection is cut because of it."""


class Connection:
    """One connection, from the end of its handshake on."""

    def __init__(self, floor: Floor, session: Session, protocol: ServerProtocol) -> None:
        now = trio.current_time()
        self.session = session
        self.outbox = Outbox()
        self.pulse = Pulse(now, now, now, now, now)
        self._floor = floor
        self._protocol = protocol
        self._partial = bytearray()
        rules = floor.kind.rules
        self._windows = (Window(rules.messages), Window(rules.subscriptions))

    # ---- out ----

    def greet(self) -> None:
        """Send the greeting; from now on the venue takes messages."""
        for message in self._floor.kind.greeting(self.session, self._now()):
            self.send(message)
        self.pulse.greeted = True

    def send(self, message: bytes, *, pong: bool = False) -> None:
        """Send a message, unless the venue is mute. `pong`: it answers a ping."""
        mute = self._floor.faults.mute
        if self._protocol.state is State.OPEN and (mute == "no" or (pong and mute == "messages")):
            self.pulse.sent = trio.current_time()
            self._encode(message)
            self._flush()

    def play(self, messages: Sequence[tuple[str, bytes, bytes]]) -> None:
        """Send messages with trades: of each the symbol, the message, and its frame. No symbol: for all."""
        if self._protocol.state is not State.OPEN or self._floor.faults.mute != "no":
            return
        wanted = self.session.subscribed
        mine = [each for each in messages if each[0] in wanted or (not each[0] and wanted)]
        if not mine:
            return
        if self.outbox.full:
            self.outbox.dropped.cancel()
            return
        self.pulse.sent = trio.current_time()
        if self._protocol.extensions or self._floor.faults.fragments > 1:
            for _, message, _ in mine:
                self._encode(message)
            self._flush()
        else:
            self.outbox.put(b"".join([frame for _, _, frame in mine]))

    def ping(self) -> None:
        """Send a ping of the WebSocket protocol."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_ping(b"%d" % self._floor.clock.now())
            self._flush()

    def close(self, code: int, reason: str) -> None:
        """Close the connection with this code."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason.encode()[:MOST_REASON].decode(errors="ignore"))
            self._flush()
            self.pulse.closing.set()

    def violate(self, rule: str) -> None:
        """Record that the client broke a rule, and disconnect it."""
        if self._protocol.state is State.OPEN:
            self._floor.violations.append(f"connection {self.session.number}: {rule}")
            self.close(self._floor.kind.rules.policy_code, rule)

    def _encode(self, message: bytes) -> None:
        count = self._floor.faults.fragments
        if count > 1:
            first, *others = pieces(message, count) or [b""]
            self._protocol.send_text(first, fin=not others)
            for number, piece in enumerate(others, 1):
                self._protocol.send_continuation(piece, fin=number == len(others))
        elif self._protocol.extensions:
            self._protocol.send_text(message)
        else:
            self.outbox.put(text_frame(message))

    def _flush(self) -> None:
        """Send what the protocol has to send."""
        for data in self._protocol.data_to_send():
            if data == SEND_EOF:
                self.outbox.end()
            elif self._floor.faults.mute != "all":
                self.outbox.put(data)

    # ---- in ----

    def receive(self, data: bytes) -> None:
        """Take bytes of the client; empty: there are no more."""
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and self._protocol.state is State.OPEN:
                self._heard(event)
        self._flush()
        if not data:
            self.outbox.end()

    def _heard(self, frame: Frame) -> None:
        if frame.opcode is Opcode.PONG:
            self.pulse.ponged = trio.current_time()
        if frame.opcode in {Opcode.PING, Opcode.PONG}:
            if self._floor.kind.rules.control_frames_count:
                self._count(0, "messages, pings and pongs")
            return
        if frame.opcode in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
            self._partial += frame.data
            if frame.fin:
                message = bytes(self._partial)
                self._partial.clear()
                self._read(message)

    def _read(self, message: bytes) -> None:
        self.pulse.heard = trio.current_time()
        if not self._count(0, "messages"):
            return
        if excess := self._floor.requests.excess(self.pulse.heard):
            self.violate(f"messages of the address: {excess}")
            return
        if not self.pulse.greeted:
            self.violate("a message came before the greeting")
            return
        floor = self._floor
        answer = floor.kind.answer(message, self.session, floor.market, self._now())
        if answer.ping:
            self.pulse.pinged = self.pulse.heard
        elif not self._count(1, "subscriptions"):
            return
        self._follow(answer)

    def _count(self, window: int, what: str) -> bool:
        """Count a message; returns whether it was allowed."""
        excess = self._windows[window].excess(trio.current_time())
        if excess:
            self.violate(f"{what}: {excess}")
        return not excess

    def _follow(self, answer: Answer) -> None:
        """Do what the venue does about a message."""
        rules = self._floor.kind.rules
        if answer.violation:
            self._floor.violations.append(f"connection {self.session.number}: {answer.violation}")
        if rules.batch is not None and len(answer.subscribe) > rules.batch:
            self.violate(f"{len(answer.subscribe)} symbols in a request (at most {rules.batch})")
            return
        for message in answer.messages:
            self.send(message, pong=answer.ping)
        for symbol in answer.unsubscribe:
            self.session.subscribed.pop(symbol, None)
        for symbol in answer.subscribe:
            self._subscribe(symbol)
        if rules.symbols is not None and len(self.session.subscribed) > rules.symbols:
            self.violate(f"{len(self.session.subscribed)} symbols (at most {rules.symbols})")

    def _subscribe(self, symbol: str) -> None:
        floor = self._floor
        self.pulse.subscribed = True
        self.session.subscribed[symbol] = None
        floor.market.open(symbol)
        if floor.faults.resend:
            old = floor.market.recent(symbol, floor.faults.resend)
            for _, message in floor.kind.messages(old, floor.kind.variant(self.session)):
                self.send(message)

    def _now(self) -> int:
        return self._floor.clock.now() * 1_000_000
