"""Fakes of the ports that the HTTP adapter uses, a server with them on a real port, and a simple client.

It has no tests itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, contextmanager

import attrs
import h11
import trio

from marketflow.adapters.http.app import create_app
from marketflow.adapters.http.server import Limits, open_listener, serve_http
from marketflow.app.answers import (
    Candle,
    Candles,
    Latest,
    NoData,
    PriceAt,
    Statistic,
    Summary,
    UnknownExchange,
    UnknownSymbol,
)
from marketflow.app.instruments.histogram import Distribution
from marketflow.app.interface import (
    ClusterFigures,
    Counters,
    ExchangeHealth,
    ExchangeState,
    HealthReport,
    Measurements,
    NodeReport,
    StoreHealth,
    only,
)
from marketflow.app.interface import Questions as AllQuestions
from marketflow.config.settings import HttpSettings

TIME = 1_795_343_351_549
AWKWARD = 0.1 + 0.2
"""A price that shows any rounding: 0.30000000000000004."""


class FakePrices:
    """Its answers contain the arguments, so that a test sees them."""

    symbols = ("BTCUSDT", "ETHUSDT")
    exchanges = ("exchange1", "exchange2", "test1")

    def __init__(self):
        self.error = None
        self.asked = []
        self.hold = None

    async def _ask(self, symbol, exchange, *details):
        self.asked.append((symbol, exchange, *details))
        await trio.lowlevel.checkpoint()
        if self.hold is not None:
            await self.hold.wait()
        if self.error is not None:
            raise self.error
        self.check((symbol,) if isinstance(symbol, str) else symbol, exchange)
        if symbol == "ETHUSDT":
            raise NoData("no updates of ETHUSDT in the last minute")

    def check(self, symbols, exchanges):
        for symbol in symbols or ():
            if symbol not in self.symbols:
                raise UnknownSymbol(symbol, self.symbols)
        for exchange in exchanges or ():
            if exchange not in self.exchanges:
                raise UnknownExchange(exchange, self.exchanges)

    async def latest(self, symbol, exchanges):
        await self._ask(symbol, exchanges)
        return Latest(symbol, only(exchanges) or "exchange1", AWKWARD, TIME, "redis", 0.25)

    async def latest_of_all(self, symbols, exchanges):
        await self._ask(symbols, exchanges)
        return [
            Latest(symbol, exchange, AWKWARD, TIME, "redis", 0.25)
            for symbol in symbols or self.symbols[:1]
            for exchange in exchanges or self.exchanges[:1]
        ]

    async def at(self, symbol, exchanges, time):
        await self._ask(symbol, exchanges, time)
        return PriceAt(symbol, only(exchanges) or "exchange1", AWKWARD, time - 50, time, "exact", "redis")

    async def statistic(self, kind, symbol, exchanges, asked):
        await self._ask(symbol, exchanges, kind, asked)
        return Statistic(symbol, only(exchanges), asked.named_period, AWKWARD, 600, *spanned(asked), "memory")

    async def statistics(self, kind, symbols, exchanges, asked):
        await self._ask(symbols, exchanges, kind, asked)
        return [
            Statistic(symbol, only(exchanges), asked.named_period, AWKWARD, 600, *spanned(asked), "memory")
            for symbol in symbols or self.symbols[:1]
        ]

    async def summary(self, symbol, exchanges, asked):
        await self._ask(symbol, exchanges, asked)
        return Summary(
            *(symbol, only(exchanges), asked.named_period, 2.0, 1.0, 3.0, 1.5, 2.5, 600),
            *(12.5, 25.0, 7.5, 5.0, 300, 2.0),
            *(*spanned(asked), "postgres"),
        )

    async def summaries(self, symbols, exchanges, asked):
        await self._ask(symbols, exchanges, asked)
        return [await self.summary(symbol, exchanges, asked) for symbol in symbols or self.symbols[:1]]

    async def candles(self, symbol, exchanges, interval, start, end, limit):
        await self._ask(symbol, exchanges, interval, start, end, limit)
        exchange = only(exchanges)
        candle = Candle(
            0, 60_000, 1.0, 3.0, 0.5, 2.0, 1.75, 600, 12.5, 25.0, None, None, 300, 2.0, closed=True
        )
        return Candles(symbol, exchange, interval, [candle], 60_000)


def spanned(asked):
    """The bounds of the span at TIME."""
    span = asked.span(TIME)
    return span.start, span.end


class FakeStream:
    """Gives every client the test's events, and records subscriptions."""

    def __init__(self, check):
        self.check = check
        self.error = None
        self.asked = []
        self._clients = []

    @property
    def clients(self):
        return len(self._clients)

    @contextmanager
    def subscribed(self, symbols, exchanges, since):
        self.check(symbols, exchanges)
        if self.error is not None:
            raise self.error
        self.asked.append((symbols, exchanges, since))
        send, receive = trio.open_memory_channel(100)
        self._clients.append(send)
        try:
            yield receive
        finally:
            self._clients.remove(send)

    def tell(self, *events):
        """Give all clients these events at once; none stands for a heartbeat."""
        for client in self._clients:
            client.send_nowait(events)

    def end(self):
        for client in self._clients:
            client.send_nowait(None)


NOTHING = Counters(0, 0, {}, 0, 0, {}, 0)
SOME = Counters(12, 10, {"malformed": 1, "late": 1}, 6, 1, {"overflow": 2}, 1)


class FakeHealth:
    """A health report that the test sets."""

    def __init__(self):
        self.live = True
        self.ready = True
        self.status = "ok"

    def report(self):
        return HealthReport(
            status=self.status,
            mode="live",
            version="0.1.0",
            uptime=12.5,
            redis=StoreHealth("up", TIME),
            postgres=StoreHealth("away", TIME, "it does not answer"),
            exchanges={
                "exchange1": ExchangeHealth("connected", 0.05, 2, SOME),
                "test1": ExchangeHealth("off", None, 0, NOTHING),
            },
            updates=SOME,
        )

    def counters(self):
        return {"exchange1": SOME, "test1": NOTHING}

    @property
    def in_cluster(self):
        return isinstance(self.report(), NodeReport)

    def exchange_list(self):
        return [ExchangeState("exchange1", "live", "connected"), ExchangeState("test1", "test", "off")]


@attrs.define
class FakeMeasuring:
    """Measurements with the counters of health and fixed numbers."""

    health: FakeHealth
    cluster: ClusterFigures | None = None

    def measurements(self):
        return Measurements(
            health=self.health.report(),
            ready=self.health.ready,
            pending_limits={"exchange1": 100, "test1": 200},
            latency_seconds=Distribution([(0.5, 4), (math.inf, 6)], 2.75),
            flush_seconds=Distribution([(0.5, 3), (math.inf, 3)], 0.25),
            volumes_ignored={"exchange1": 2, "test1": 0},
            aggregates_written=15,
            aggregates_pending=4,
            aggregates_refused=3,
            feed_bugs={"exchange1": 5, "test1": 0},
            stream_clients=7,
            cluster=self.cluster,
        )


class FakeModes:
    """Switches at once."""

    def __init__(self):
        self.mode = "live"
        self.switches = []

    async def switch(self, mode):
        self.switches.append(mode)
        changed = mode != self.mode
        self.mode = mode
        return changed


@attrs.define
class Questions:
    """All of these fakes."""

    prices: FakePrices = attrs.Factory(FakePrices)
    stream: FakeStream = attrs.Factory(lambda self: FakeStream(self.prices.check), takes_self=True)
    health: FakeHealth = attrs.Factory(FakeHealth)
    modes: FakeModes = attrs.Factory(FakeModes)
    cluster: ClusterFigures | None = None

    def app(self, token=None, hosts=(), origins=()):
        return create_app(
            AllQuestions(
                prices=self.prices,
                stream=self.stream,
                health=self.health,
                measuring=FakeMeasuring(self.health, self.cluster),
                modes=self.modes,
            ),
            token=token,
            hosts=hosts,
            origins=origins,
            max_body_size=HttpSettings().max_body_size,
            stale_after=5_000,
        )


@attrs.define
class Running:
    """A server under test."""

    url: str
    port: int
    stop: trio.Event
    """Set by the test for a graceful stop."""
    stopped: trio.Event
    cancel: Callable[[], None]
    """Ends it at once."""

    async def connect(self):
        return Client(await trio.open_tcp_stream("127.0.0.1", self.port))


LIMITS = Limits(HttpSettings().max_connections, HttpSettings().max_head_size)


@asynccontextmanager
async def serving(app, *, host="127.0.0.1", graceful_timeout=5.0, limits=LIMITS) -> AsyncIterator[Running]:
    """The app on a real port; stopped at the end, or earlier by the test."""
    stop, stopped, scope = trio.Event(), trio.Event(), trio.CancelScope()
    listener = open_listener(host, 0)

    async def run(task_status):
        with scope:
            await serve_http(
                app,
                listener,
                shutdown=stop.wait,
                graceful_timeout=graceful_timeout,
                limits=limits,
                task_status=task_status,
            )
        stopped.set()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            port = listener.getsockname()[1]
            url = await nursery.start(run)
            yield Running(url, port, stop, stopped, scope.cancel)
            stop.set()


@attrs.frozen
class Answer:
    """A response as it was received."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class Client:
    """One persistent connection; h11 makes it strict about the protocol."""

    def __init__(self, stream):
        self.stream = stream
        self._connection = h11.Connection(h11.CLIENT)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await trio.aclose_forcefully(self.stream)

    async def request(self, method, target, *, headers=(), body=b""):
        """Send a whole request; returns its answer."""
        if body:
            headers = [*headers, ("Content-Length", str(len(body)))]
        send = self._connection.send
        await self.stream.send_all(
            send(h11.Request(method=method, target=target, headers=[("Host", "127.0.0.1"), *headers]))
        )
        if body:
            await self.stream.send_all(send(h11.Data(data=body)))
        await self.stream.send_all(send(h11.EndOfMessage()))
        return await self._answer()

    async def get(self, target, **options):
        return await self.request("GET", target, **options)

    async def _answer(self):
        head, body = None, b""
        while True:
            match self._connection.next_event():
                case h11.NEED_DATA:
                    self._connection.receive_data(await self.stream.receive_some())
                case h11.Response() as head:
                    pass
                case h11.Data(data=part):
                    body += part
                case h11.EndOfMessage():
                    break
        if self._connection.our_state is h11.DONE and self._connection.their_state is h11.DONE:
            self._connection.start_next_cycle()
        headers = {name.decode(): value.decode() for name, value in head.headers}
        return Answer(head.status_code, headers, body)

    async def read_to_end(self):
        """Read until the server closes."""
        parts = [part async for part in self.stream]
        return b"".join(parts)


async def eventually(condition, *, within=15.0):
    """Wait until the condition holds."""
    with trio.fail_after(within):
        while not condition():  # noqa: ASYNC110 - not everything that is waited for sets an event
            await trio.sleep(0.005)
