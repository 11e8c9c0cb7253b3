"""Simulated exchanges: what they send is decided by the seed, and everything that a feed was given is noted.

An exchange has one sequence of lines. Every connection gets all of them from the moment at which it was made,
in pieces that may end within a line.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple, TypeGuard

import attrs
import trio

from marketflow.adapters.exchange.reading import LineReader
from marketflow.app.ports import Decode, Decoded, Intake
from tests.simulation.trades import Numbering, is_id, spelled
from tests.simulation.volumes import Telling, Told, no_number, told_by

GARBAGE = (
    b"hello",
    b"{}",
    b'{"symbol":"BTCUSDT","price":"1.5","timestamp":1795343351549}',
    b'{"symbol":"BTCUSDT","price":NaN,"timestamp":1795343351549}',
    b'{"symbol":"BTCUSDT","price":-1,"timestamp":1795343351549}',
    b'{"symbol":"NOTHING","price":1.5,"timestamp":1795343351549}',
    b'{"symbol":"BTCUSDT","price":1.5,"timestamp":17}',
    b'{"symbol":"BTCUSDT","price":1.5,"timestamp":99999999999999}',
)
BAD_TRADES = (
    {"price": -1},
    {"price": 0},
    {"symbol": "NOTHING"},
    {"symbol": "BTCUSDT"},
    {"timestamp": 17},
    {"timestamp": 99999999999999},
)
"""What is wrong with trades that have an id, and are not accepted."""
BAD_TRADE = 0.03
"""How often something is."""
LAGS = (0, 0, 0, 0, 30, 300, 1_500, 4_000)
"""How far (ms) a timestamp may be behind: one is drawn for each line."""
EDGE = 0.04
"""How often a timestamp is at the edge of an interval, or of what is late."""
MOST_RECEIVED = 65_536
FUTURE = 5_000
"""How far (ms) a timestamp may be ahead of the service's clock."""


@attrs.define
class Behaviour:
    """What an exchange does just now. Faults change it, and change it back."""

    down: bool = False
    """Connections are refused, and those that there were end."""
    mute: bool = False
    """Connected, but nothing is sent."""
    mad: bool = False
    """Half of the lines are garbage."""
    ahead: int = 0
    """How far (ms) its clock is ahead of the true time."""
    burst: int = 1
    """How many times as much is sent."""


class SimulatedExchange:
    """Sends lines at its pace until cancelled."""

    def __init__(
        self,
        name: str,
        symbols: Sequence[str],
        rng: random.Random,
        true_time: Callable[[], int],
        tick: float,
        *,
        interval: int,
        lateness: int,
        step: Callable[[], int],
        telling: Telling | None = None,
        numbering: Numbering | None = None,
    ) -> None:
        """`true_time` in Unix ms, `tick` in seconds, `interval` and `lateness` of the aggregates in ms.

        `step` gives the number of the present step of all tasks. None `telling`: it tells no volumes.
        None `numbering`: it sends lines without ids. Otherwise it is a venue.
        """
        self.name = name
        self.most_received = 0
        """Lines that a feed was given at once, at most."""
        self._interval = interval
        self._lateness = lateness
        self.behaviour = Behaviour()
        self._symbols = symbols
        self._rng = rng
        self._true_time = true_time
        self._tick = tick
        self._step = step
        self._telling = telling
        self.numbering = numbering
        if numbering is not None:
            self._earlier(numbering)
        self._connections: list[SimulatedConnection] = []
        self.sent = trio.Event()
        """Set when lines are sent to a connection. Who waits for it puts a new one in its place."""

    async def run(self) -> None:
        """Send, tick by tick."""
        while True:
            await trio.sleep(self._tick * self._rng.uniform(0.5, 1.5))
            # A venue trades on while nobody can connect.
            closed = self.behaviour.down and self.numbering is None
            if not self.behaviour.mute and not closed:
                self.send()

    def send(self) -> None:
        """Send some lines to all connections."""
        lines = [self._line() for _ in range(self._rng.randint(1, 3) * self.behaviour.burst)]
        for connection in list(self._connections):
            connection.send(b"".join(lines))
        if self._connections:
            self.sent.set()

    def _line(self) -> bytes:
        rng = self._rng
        if rng.random() < (0.5 if self.behaviour.mad else 0.01):
            return rng.choice((*GARBAGE, b"", b"\r")) + b"\n"
        # Few different prices and timestamps: equal ones are the hard case.
        price = rng.choice((1.5, 2e-07, 100150.75492142327, rng.uniform(1, 9)))
        time = self._true_time() + self.behaviour.ahead - rng.choice(LAGS)
        if rng.random() < EDGE:
            # The first or the last ms of an interval: of this one, or of the oldest that is not late.
            late = rng.choice((0, self._lateness))
            time = (self._true_time() - late) // self._interval * self._interval - rng.choice((0, 1))
        line = {"symbol": rng.choice(self._symbols), "price": price, "timestamp": time}
        if self.numbering is not None:
            return self._numbered(line, self.numbering)
        return f"{self._text(line)}}}\n".encode()

    def _numbered(self, line: dict[str, Any], numbering: Numbering) -> bytes:
        """What is sent because of a trade."""
        symbol = line["symbol"]
        line["symbol"] = spelled(symbol)
        if self._rng.random() < BAD_TRADE:
            line |= self._rng.choice(BAD_TRADES)
        return numbering.lines(symbol, self._text(line, symbol))

    def _text(self, line: dict[str, Any], symbol: str | None = None) -> str:
        """A line without its end. `symbol` is our name of it, if the line has another."""
        told = self._telling.told(symbol or line["symbol"]) if self._telling else ""
        return f"{json.dumps(line)[:-1]}{told}"

    def _earlier(self, numbering: Numbering) -> None:
        """Trades that were made before everything began."""
        for symbol in self._symbols:
            for _ in range(self._rng.randint(0, 5)):
                time = self._true_time() - self._rng.randint(numbering.age // 2, numbering.age)
                line = {"symbol": spelled(symbol), "price": 1.5, "timestamp": time}
                numbering.remember(symbol, self._text(line, symbol))

    def open(self) -> SimulatedConnection:
        """A new connection.

        Raises:
            ConnectionRefusedError: the exchange is down.
        """
        if self.behaviour.down:
            raise ConnectionRefusedError("simulated: the exchange is down")
        connection = SimulatedConnection(self._rng, self._step)
        if self.numbering is not None and not self.behaviour.mute:
            connection.send(self.numbering.snapshot())
        self._connections.append(connection)
        return connection

    @property
    def waiting_since(self) -> float:
        """Since when a connection has something that its feed has not received; inf without one."""
        return min((connection.waiting_since for connection in self._connections), default=math.inf)

    def forget(self, connection: SimulatedConnection) -> None:
        """The other side has closed it."""
        if connection in self._connections:
            self._connections.remove(connection)

    def drop(self, *, broken: bool) -> None:
        """End all connections, in order or by breaking them, often within a line or just before its end."""
        line = self._line()[:-1]
        if line and self._rng.random() < 0.7:
            cut = len(line) if self._rng.random() < 0.5 else self._rng.randrange(len(line))
            for connection in self._connections:
                connection.send(line[:cut])
        for connection in self._connections:
            connection.end(broken=broken)
        self._connections.clear()


class SimulatedConnection:
    """One direction of a connection: what was sent waits until it is received."""

    def __init__(self, rng: random.Random, step: Callable[[], int]) -> None:
        """`step` gives the number of the present step of all tasks."""
        self._rng = rng
        self._step = step
        self._waiting = b""
        self.waiting_since = math.inf
        """Since when the oldest of what waits does so (seconds of Trio's clock)."""
        self.waiting_step = math.inf
        """The step in which the oldest of what waits was sent; inf if nothing waits."""
        self.received_step = step()
        """The step in which something was last received, or before that the one of the connecting."""
        self._ended: str | None = None
        self._changed = trio.Event()

    def send(self, data: bytes) -> None:
        """Put bytes in, as the exchange does."""
        if data and not self._waiting:
            self.waiting_since, self.waiting_step = trio.current_time(), self._step()
        self._waiting += data
        self._wake()

    def end(self, *, broken: bool) -> None:
        """No more will come."""
        self._ended = "broken" if broken else "closed"
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def receive(self) -> bytes:
        """The next bytes, not always all that are there; empty at the end.

        Raises:
            ConnectionResetError: it broke.
        """
        while not self._waiting and self._ended is None:
            await self._changed.wait()
        await trio.lowlevel.checkpoint()
        if self._waiting:
            length = len(self._waiting)
            if self._rng.random() < 0.2:
                length = self._rng.randint(1, length)
            length = min(length, MOST_RECEIVED)
            data, self._waiting = self._waiting[:length], self._waiting[length:]
            self.received_step = self._step()
            if not self._waiting:
                self.waiting_since = self.waiting_step = math.inf
            return data
        if self._ended == "broken":
            raise ConnectionResetError("simulated: the connection broke")
        return b""

    def has_come(self) -> bool:
        """Whether there is something to receive, or the end."""
        return bool(self._waiting) or self._ended is not None


class SimulatedSource:
    """Fills the port Source for one process, with the product's reader and codec. Notes each line."""

    def __init__(
        self,
        exchange: SimulatedExchange,
        note: Callable[[str, bytes], None],
        reachable: Callable[[], bool],
        frozen: Callable[[], trio.Event | None],
        closed: Callable[[SimulatedConnection], None],
        decode: Decode[Any],
        reader: LineReader,
        failed: Callable[[Exception], None],
    ) -> None:
        """What the process can do is asked of it: `reachable`, and `frozen` (an event that thaws it).

        `closed` is called with each connection that the feed has left in order, because of a stop; `failed`
        with what is no outage: a check that failed, or a bug. The feed logs it and goes on.
        """
        self._closed = closed
        self._failed = failed
        self.exchange = exchange.name
        self._decode = decode
        self._reader = reader
        self._simulated = exchange
        self._note = note
        self._reachable = reachable
        self._frozen = frozen

    def decode(self, payload: Any) -> Decoded:
        """See the port."""
        try:
            return self._decode(payload)
        except Exception as error:
            self._failed(error)
            raise

    async def run(self, intake: Intake[Any]) -> None:
        """Connect and read, until the connection ends or the stop comes."""
        try:
            await self._read(intake)
        except OSError:
            raise
        except Exception as error:
            self._failed(error)
            raise

    async def _read(self, intake: Intake[Any]) -> None:
        await self._reader.connect_and_read(intake, self._connect())

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[_Framed]:
        """A new connection, closed on leaving."""
        await trio.lowlevel.checkpoint()
        if not self._reachable():
            raise ConnectionRefusedError("simulated: no network")
        connection = self._simulated.open()
        framed = _Framed(self._simulated, connection, partial(self._note, self.exchange), self._frozen)
        try:
            yield framed
            self._closed(connection)
        except OSError:
            # A line without an end counts where the connection has ended, not where the feed was stopped.
            framed.finish()
            raise
        finally:
            self._simulated.forget(connection)


class _Framed:
    """Cuts what was received into lines, in the simplest way there is."""

    def __init__(
        self,
        exchange: SimulatedExchange,
        connection: SimulatedConnection,
        note: Callable[[bytes], None],
        frozen: Callable[[], trio.Event | None],
    ) -> None:
        self._exchange = exchange
        self._connection = connection
        self._note = note
        self._frozen = frozen
        self._rest = b""

    def has_come(self) -> bool:
        """Whether there is something to receive, or the end."""
        return self._connection.has_come()

    async def receive(self) -> bytes:
        """The next bytes."""
        try:
            data = await self._connection.receive()
        except OSError:
            self.finish()
            raise
        if (thawed := self._frozen()) is not None:
            with trio.CancelScope(shield=True):
                await thawed.wait()
        if not data:
            self.finish()
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._exchange.most_received = max(self._exchange.most_received, len(lines))
        for line in lines:
            self._note(line)
        return data

    def finish(self) -> None:
        """The connection has ended."""
        if self._rest:
            self._note(self._rest)
        self._rest = b""


class GoodLine(NamedTuple):
    """What an acceptable line says."""

    symbol: str
    price: float
    timestamp: int
    told: Told


class GoodTrade(NamedTuple):
    """What a trade says whose message can be read."""

    line: GoodLine
    id: int | str
    reason: str | None
    """Why it is not accepted, if its id is not the reason."""


class Rules(NamedTuple):
    """What is accepted. Times in ms."""

    symbols: Sequence[str]
    wall: int
    interval: int
    lateness: int

    def reason_against(self, good: GoodLine) -> str | None:
        """Why a line that can be read is not accepted."""
        reasons = {
            "symbol": good.symbol not in self.symbols,
            "price": good.price <= 0,
            "future": good.timestamp > self.wall + FUTURE,
            "late": self.wall >= (good.timestamp // self.interval + 1) * self.interval + self.lateness,
        }
        return next((reason for reason, holds in reasons.items() if holds), None)


def judged(line: bytes, rules: Rules) -> str | GoodLine | None:
    """What must become of a line.

    Returns:
        None if it is blank; the reason of its rejection; or what it says.
    """
    if not line.strip(b" \t\r"):
        return None
    good = _good(_fields(line))
    return "malformed" if good is None else rules.reason_against(good) or good


def judged_trade(message: bytes, rules: Rules) -> GoodTrade | None:
    """What a trade with an id says, and whether it is accepted as far as it alone tells.

    Returns:
        None if it cannot be read.
    """
    fields = _fields(message)
    good, number = _good(fields), fields.get("id")
    if good is None or not is_id(number):
        return None
    ours = {spelled(symbol): symbol for symbol in rules.symbols}
    good = good._replace(symbol=ours.get(good.symbol, ""))
    return GoodTrade(good, number, rules.reason_against(good))


def _fields(line: bytes) -> dict[str, Any]:
    """Those of a line; none if it is no object of JSON."""
    try:
        fields = json.loads(line, parse_constant=no_number)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _good(fields: dict[str, Any]) -> GoodLine | None:
    """What a well-formed line says."""
    symbol, price, time = (fields.get(key) for key in ("symbol", "price", "timestamp"))
    if not isinstance(symbol, str) or not isinstance(time, int) or not finite(price):
        return None
    return GoodLine(symbol, float(price), time, told_by(fields, float(price)))


def finite(price: object) -> TypeGuard[float]:
    """Whether it can be a price."""
    return isinstance(price, float | int) and math.isfinite(price)
