"""A second kind of exchange, for tests. It shares only the checks with the source of JSON lines.

Its frames are four bytes of length and a JSON array of messages, each an array itself:

    ["t","BTC-USDT","100150.75",1795343351549]    a trade; the price is a string
    ["h"]                                         a heartbeat

A client first subscribes and waits for the answer. It must send a ping now and then, or it is disconnected.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any

import attrs
import msgspec
import trio

from marketflow.adapters.exchange.checks import Checks
from marketflow.app.ports import Clock, Decoded, Intake
from marketflow.domain.prices import MALFORMED, OVERSIZED

MOST_FRAME = 10_000
"""The most bytes of a frame."""
PING_EVERY = 0.05
"""Seconds between a client's pings."""
PATIENCE = 3.0
"""Seconds for which the exchange waits for a ping, and the client for the answer to its subscription."""


# ---- the wire ----


def frame(body: bytes) -> bytes:
    """A frame on the wire."""
    return struct.pack(">I", len(body)) + body


def frame_of(*messages: Sequence[Any]) -> bytes:
    """The frame of some messages."""
    return frame(json.dumps(messages).encode())


def trade(symbol: str, price: float, timestamp: int) -> list[Any]:
    """The message of an update."""
    return ["t", f"{symbol[:-4]}-{symbol[-4:]}", repr(price), timestamp]


class FrameError(ConnectionError):
    """The stream is not a sequence of frames any more."""


class Framer:
    """Cuts bytes into frames."""

    def __init__(self) -> None:
        self.rest = b""

    def push(self, data: bytes) -> tuple[list[bytes], int]:
        """Returns the bodies that are whole now, and the number of discarded frames, which were too long."""
        self.rest += data
        bodies: list[bytes] = []
        oversized = 0
        while len(self.rest) >= 4:
            (size,) = struct.unpack(">I", self.rest[:4])
            if size > 100 * MOST_FRAME:
                raise FrameError("no frame begins here")
            if len(self.rest) < 4 + size:
                break
            body, self.rest = self.rest[4 : 4 + size], self.rest[4 + size :]
            if size > MOST_FRAME:
                oversized += 1
            else:
                bodies.append(body)
        return bodies, oversized


# ---- the source ----


@attrs.frozen
class Frames:
    """Data that was received together. Implements the port `Payload`."""

    bodies: tuple[bytes, ...]
    oversized: int
    received_at: int
    received_monotonic: float

    @property
    def messages(self) -> int:
        return len(self.bodies) + self.oversized


@attrs.frozen
class Trade:
    symbol: str
    price: float
    timestamp: int
    volume: object = msgspec.UNSET
    side: object = None


@attrs.frozen
class FramedCodec:
    """Implements the port `Decode`."""

    checks: Checks

    def __call__(self, payload: Frames, /) -> Decoded:
        trades: list[Trade] = []
        malformed = 0
        for body in payload.bodies:
            try:
                messages = msgspec.json.decode(body, type=list[list[Any]])
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                malformed += 1
                continue
            for message in messages:
                match message:
                    case ["h"]:
                        pass
                    case ["t", str(symbol), str(price), int(timestamp)] if (
                        number := _price(price)
                    ) is not None:
                        trades.append(Trade(symbol.replace("-", ""), number, timestamp))
                    case _:
                        malformed += 1
        counts = {OVERSIZED: payload.oversized, MALFORMED: malformed}
        rejected = {reason: count for reason, count in counts.items() if count}
        return self.checks.decoded(trades, rejected, payload.received_at)


def _price(text: str) -> float | None:
    try:
        price = float(text)
    except ValueError:
        return None
    return price if math.isfinite(price) else None


@attrs.define(eq=False)
class FramedSource:
    """Implements the port `Source`, with one task that reads and one that pings."""

    exchange: str
    port: int
    decode: Callable[[Frames], Decoded]
    clock: Clock
    beside: Callable[[], Awaitable[None]] | None = None
    """One more task for each connection, which tests let fail."""

    async def run(self, intake: Intake[Frames]) -> None:
        stream = await intake.outside(partial(trio.open_tcp_stream, "127.0.0.1", self.port), PATIENCE)
        if stream is None:
            if intake.stopping:
                return
            raise TimeoutError("no connection in time")
        async with stream, trio.open_nursery() as nursery:
            await self._talk(intake, stream, nursery)
            nursery.cancel_scope.cancel()

    async def _talk(self, intake: Intake[Frames], stream: trio.SocketStream, nursery: trio.Nursery) -> None:
        framer = Framer()
        await intake.outside(partial(stream.send_all, frame_of(["subscribe", "trades"])), PATIENCE)
        answer = b""
        while not answer.startswith(frame_of(["subscribed"])):
            data = await intake.outside(stream.receive_some, PATIENCE)
            if intake.stopping:
                return
            if not data:
                raise TimeoutError("the subscription was not answered")
            answer += data
        intake.connected()
        nursery.start_soon(self._ping, stream)
        if self.beside is not None:
            nursery.start_soon(self.beside)
        await self._pass_on(intake, framer, answer[len(frame_of(["subscribed"])) :])
        try:
            async for data in intake.received(partial(stream.receive_some, 1_000)):
                if not data:
                    raise ConnectionError("closed by the exchange")
                await self._pass_on(intake, framer, data)
        except OSError as error:
            if framer.rest:  # half a frame
                intake.ended(error)
                await self._send(intake, [framer.rest], 0)
            raise

    async def _ping(self, stream: trio.SocketStream) -> None:
        while True:
            await trio.sleep(PING_EVERY)
            await stream.send_all(frame_of(["ping"]))

    async def _pass_on(self, intake: Intake[Frames], framer: Framer, data: bytes) -> None:
        bodies, oversized = framer.push(data)
        if bodies or oversized:
            await self._send(intake, bodies, oversized)

    async def _send(self, intake: Intake[Frames], bodies: Iterable[bytes], oversized: int) -> None:
        await intake.send(Frames(tuple(bodies), oversized, self.clock.now(), trio.current_time()))


# ---- the exchange ----


class FramedServer:
    """Serves clients, and sends the test's messages to the newest client that has subscribed."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        """The number of subscriptions so far."""
        self.pings = 0
        self.mute = False
        """Whether it leaves subscriptions without an answer."""
        self._streams: list[trio.SocketStream] = []

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, self._serve, listeners)
            task_status.started()

    @property
    def connected(self) -> bool:
        """Whether a client has subscribed."""
        return bool(self._streams)

    async def send(self, data: bytes) -> None:
        """Send bytes to the newest client, if there is one."""
        if self._streams:
            await self._streams[-1].send_all(data)

    async def drop(self, last: bytes = b"") -> None:
        """Close the newest client's connection, after some last bytes."""
        stream = self._streams.pop()
        await stream.send_all(last)
        await stream.aclose()

    async def _serve(self, stream: trio.SocketStream) -> None:
        framer = Framer()
        try:
            while True:
                with trio.fail_after(PATIENCE):
                    data = await stream.receive_some()
                if not data:
                    return
                for body in framer.push(data)[0]:
                    await self._answer(stream, *json.loads(body))
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            return
        finally:
            if stream in self._streams:
                self._streams.remove(stream)

    async def _answer(self, stream: trio.SocketStream, message: Sequence[str]) -> None:
        match message:
            case ["subscribe", "trades"] if not self.mute:
                await stream.send_all(frame_of(["subscribed"]))
                self.connections += 1
                self._streams.append(stream)
            case ["ping"]:
                self.pings += 1
