"""One open WebSocket: whole messages in, messages out, both over one stream.

```
 stream ──bytes, paced──> Unframer ──messages──> receive
    ^                        │ pongs, close
    │                        v
    └──────── lock <────── answer
                ^
                └──── send, close         each at its turn
```
The protocol is that of the library `websockets`, which does no I/O. A receive never waits for a send, so a
pong that has to wait for its turn holds up no trade. Everything that is sent goes through one lock.

Exchanges mostly send each trade in a frame of its own, and a wake-up for each would cost more than the trade.
So small amounts are read at a beat (`marketflow.adapters.exchange.pacing`): one receive then takes all frames
that wait in the socket.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import trio
from websockets.client import ClientProtocol
from websockets.exceptions import PayloadTooBig
from websockets.frames import CloseCode
from websockets.protocol import State

from marketflow.adapters.exchange.arrivals import Arrivals
from marketflow.adapters.exchange.pacing import Pace
from marketflow.adapters.exchange.websocket.errors import translated
from marketflow.adapters.exchange.websocket.tls import TlsStream
from marketflow.adapters.exchange.websocket.turns import Turns
from marketflow.adapters.exchange.websocket.unframing import Unframer

MOST_RECEIVED: Final = 65_536
"""The most bytes of one receive."""
MOST_COMPRESSED: Final = 16_384
"""The same if messages are compressed, mostly to an eighth: decoding a receive must not take too long."""


class Connection:
    """A WebSocket after its handshake. The stream stays the caller's to close.

    A task has to run `answer` as long as it is used.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        protocol: ClientProtocol,
        turns: Turns | None = None,
        *,
        pongs_take_turns: bool = False,
        early: bytes = b"",
        pace: Pace | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """What it consists of.

        Args:
            stream: the way to the exchange.
            protocol: its handshake is done.
            turns: the limit of what we send; None: there is none.
            pongs_take_turns: whether pongs count, too.
            early: what came together with the answer to the handshake.
            pace: when it is read; None: as soon as something comes.
            stopping: whether the stop has come, after which there are no pauses.
        """
        most = MOST_COMPRESSED if protocol.extensions else MOST_RECEIVED
        self._incoming = (pace or Pace()).paced(_Incoming(stream, most), stopping)
        self._protocol = protocol
        self._sender = _Sender(stream, turns, pongs_take_turns=pongs_take_turns)
        self._unframer = Unframer(protocol)
        self._early = early
        self._end: ConnectionError | None = None

    @property
    def pings(self) -> int:
        """How many WebSocket pings the exchange has sent."""
        return self._unframer.pings

    @property
    def end(self) -> ConnectionError | None:
        """Why the exchange will send nothing more; None while it may. The next `receive` raises it."""
        if self._end is None and (
            self._protocol.close_rcvd or self._protocol.parser_exc or self._protocol.state is State.CLOSED
        ):
            self._end = _end_of(self._protocol)
        return self._end

    async def receive(self) -> list[bytes]:
        """The messages that were received together; none if it was something else, such as a ping.

        A cancelled call loses nothing.

        Raises:
            ConnectionError: the connection has ended. All messages before the end were returned.
        """
        if self.end is not None:
            raise self.end
        data = self._early or await self._incoming.receive()
        self._early = b""
        messages = self._unframer.received(data)
        self._sender.owe(self._protocol.data_to_send(), closing=self._protocol.state is not State.OPEN)
        return messages

    async def answer(self) -> None:
        """Send pongs, until it is cancelled. Only the newest ping has to be answered.

        Raises:
            ConnectionError: the connection broke.
        """
        await self._sender.send_owed()

    async def send(self, make: Callable[[], bytes]) -> bool:
        """Send a message at its turn. Returns False, and sends nothing, once either side has begun to close.

        `make` is called when the turn has come, so that the message says what is true then. It may return
        an empty message, which is not sent.

        Raises:
            ConnectionError: the connection broke.
        """
        await self._sender.send(lambda: self._sent(make))
        return self._protocol.state is State.OPEN

    def _sent(self, make: Callable[[], bytes]) -> bytes:
        message = make() if self._protocol.state is State.OPEN else b""
        if not message:
            return b""
        self._protocol.send_text(message)
        return b"".join(self._protocol.data_to_send())

    async def close(self) -> None:
        """Say that we leave, or answer that the exchange does. What it has sent before can still be received.

        Raises:
            ConnectionError: the connection broke.
        """

        def farewell() -> bytes:
            if self._protocol.state is State.OPEN:
                self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
            return b"".join(self._protocol.data_to_send())

        await self._sender.send_last(farewell)


class _Incoming:
    """The receiving half of a stream."""

    def __init__(self, stream: trio.abc.Stream, most: int) -> None:
        """`most`: bytes of one receive."""
        self._stream = stream
        self._most = most
        self.has_come = _arrivals(stream)
        """Whether something has come. Under TLS it may be no data yet; then the receive waits for more."""

    async def receive(self) -> bytes:
        """What has come; empty at the end."""
        with translated():
            return bytes(await self._stream.receive_some(self._most))


def _arrivals(stream: trio.abc.Stream) -> Callable[[], bool]:
    below = stream.transport if isinstance(stream, TlsStream) else stream
    if isinstance(below, trio.SocketStream):
        return Arrivals(below.socket).has_come
    return lambda: True  # nobody can tell: the receive waits if nothing has come


class _Sender:
    """The sending half of a connection."""

    def __init__(self, stream: trio.abc.Stream, turns: Turns | None, *, pongs_take_turns: bool) -> None:
        self._stream = stream
        self._turns = turns
        self._pongs_take_turns = pongs_take_turns
        self._lock = trio.Lock()
        """Held by the task that sends."""
        self._owed = b""
        """The newest pong that is to be sent, or our answer to the exchange's close."""
        self._owes = trio.Event()

    def owe(self, frames: Sequence[bytes], *, closing: bool) -> None:
        """Note the frames with which the protocol answers."""
        answers = [each for each in frames if each]  # an empty one stands for the end of our sending
        if answers:
            self._owed = answers[-1]
            if not closing:
                self._owes.set()

    async def send_owed(self) -> None:
        while True:
            await self._owes.wait()
            async with self._lock:
                if self._pongs_take_turns:
                    await self._turn()
                self._owes = trio.Event()
                owed, self._owed = self._owed, b""
                await self._write(owed)

    async def send(self, make: Callable[[], bytes]) -> None:
        async with self._lock:
            await self._turn()
            await self._write(make())

    async def send_last(self, make: Callable[[], bytes]) -> None:
        """It takes no turn, since nothing follows."""
        async with self._lock:
            owed, self._owed = self._owed, b""
            await self._write(make() or owed)

    async def _turn(self) -> None:
        if self._turns is not None:
            await self._turns.turn()

    async def _write(self, data: bytes) -> None:
        if data:
            with translated():
                await self._stream.send_all(data)


def _end_of(protocol: ClientProtocol) -> ConnectionError:
    closed, broken = protocol.close_rcvd, protocol.parser_exc
    if closed is not None:
        return ConnectionError(f"closed by the exchange: {closed.code} {closed.reason}".rstrip())
    if isinstance(broken, PayloadTooBig):
        return ConnectionError(f"the exchange sent a message that is too large: {broken}")
    if broken is not None and not isinstance(broken, EOFError):
        return ConnectionError(f"the exchange does not keep to the WebSocket protocol: {broken}")
    return ConnectionError("closed by the exchange without a reason")
