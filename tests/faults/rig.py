"""Shared parts of the tests of faults: an exchange that records what it sends, the service, and a model.

Every answer is compared with an independent computation from the updates that were sent.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import psycopg
import redis
import trio

from marketflow.adapters.cache.bar_fields import read_bar, read_field
from marketflow.app.interface import Counters as Counts
from marketflow.app.ports import Clock
from marketflow.config import Settings
from marketflow.config.settings import ExchangeSettings
from marketflow.outside import Outside
from marketflow.service import Running, serve

BASE = {"BTCUSDT": 100_000.0, "DOGEUSDT": 0.3}
TICK = 0.05
"""Seconds between two sends of `Exchange.play`."""


def now_ms() -> int:
    """The wall clock in Unix ms."""
    return time.time_ns() // 1_000_000


async def eventually(
    condition: Callable[[], object], *, within: float = 5.0, what: str = "", every: float = 0.02
) -> float:
    """Wait until the condition (which may be async) is true; returns the seconds that it took.

    The time is that of the looks, one `every` so many seconds, so a slow machine does not use it up.
    """
    looks = math.ceil(within / every)
    for look in range(looks):
        held = condition()
        if isinstance(held, Awaitable):
            held = await held
        if held:
            return look * every
        await trio.sleep(every)
    raise AssertionError(f"not within {within} s: {what or condition}")


# ---- exchanges ----


@attrs.frozen
class Sent:
    """An update as an exchange sent it."""

    exchange: str
    symbol: str
    price: float
    timestamp: int
    order: int
    """Among equal timestamps the greater one is the later."""
    sent_at: float
    """Seconds of the monotonic clock."""
    connection: int = 0
    """The number of the exchange's connection on which it was sent."""
    volume: float | None = None
    side: str | None = None
    """Only with a volume."""

    @property
    def line(self) -> bytes:
        """The update in its wire form."""
        text = {"symbol": self.symbol, "price": self.price, "timestamp": self.timestamp}
        told = {"volume": self.volume, "side": self.side}
        return (
            json.dumps(text | {key: value for key, value in told.items() if value is not None}).encode()
            + b"\n"
        )


class Exchange:
    """A TCP server that sends the test's updates to every client, and records them."""

    _orders = itertools.count(1)

    def __init__(self, name: str) -> None:
        self.name = name
        self.telling = True
        """Whether most updates have a volume, and some of these a side."""
        self.port = 0
        self.sent: list[Sent] = []
        self.connections = 0
        """The number of connections so far."""
        self.turn = trio.Lock()
        """While this is held, the exchange is silent."""
        self._sending = trio.Lock()
        """Held by the one send at a time that a stream allows: a test may send while the exchange plays."""
        self._open: list[tuple[int, trio.SocketStream]] = []
        """Open connections with their number."""
        self._random = random.Random(name)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, self._serve, listeners)
            task_status.started()

    async def _serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        opened = self.connections, stream
        self._open.append(opened)
        try:
            while await stream.receive_some(1024):
                pass
        except trio.BrokenResourceError:
            return
        finally:
            self._open.remove(opened)

    @property
    def connected(self) -> bool:
        """Whether a client is connected."""
        return bool(self._open)

    def updates(self, symbol: str, *timestamps: int) -> list[Sent]:
        """New updates with random prices, for sending."""
        prices = [BASE[symbol] * self._random.uniform(0.9, 1.1) for _ in timestamps]
        at = time.monotonic()
        return [
            self._telling(Sent(self.name, symbol, price, timestamp, next(self._orders), at))
            for price, timestamp in zip(prices, timestamps, strict=True)
        ]

    def _telling(self, update: Sent) -> Sent:
        number = update.order
        if not self.telling or number % 5 == 0:
            return update
        side = (None, "buy", "sell", "sell")[number % 4]
        return attrs.evolve(update, volume=number % 13 / 8, side=side)

    async def send(self, updates: Sequence[Sent]) -> None:
        """Send to the newest connection; recorded as sent if there is one that takes it."""
        async with self._sending:
            if not self._open:
                return
            number, stream = self._open[-1]
            try:
                # Recorded before the send: the service may have it while the send still waits.
                self.sent.extend(attrs.evolve(update, connection=number) for update in updates)
                with trio.move_on_after(5, shield=True):  # complete writes only, even when the playing ends
                    await stream.send_all(b"".join(update.line for update in updates))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    async def play(
        self,
        clock: Callable[[], int] = now_ms,
        *,
        tick: float = TICK,
        behind: Sequence[int] = (0, 0, 0, 40, 700),
    ) -> None:
        """Send one or two updates of each symbol in each tick, some of them `behind` (ms) their time."""
        while True:
            async with self.turn:
                updates: list[Sent] = []
                for symbol in BASE:
                    late = [self._random.choice(behind) for _ in range(self._random.choice((1, 1, 2)))]
                    updates += self.updates(symbol, *[clock() - ms for ms in late])
                await self.send(updates)
            await trio.sleep(tick)


@asynccontextmanager
async def exchanges(*names: str) -> AsyncIterator[list[Exchange]]:
    """Listening exchanges with these names."""
    made = [Exchange(name) for name in names]
    async with trio.open_nursery() as nursery:
        for each in made:
            await nursery.start(each.run)
        yield made
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def playing(*players: Exchange, **how: Any) -> AsyncIterator[None]:
    """Let the exchanges play during the block."""
    async with trio.open_nursery() as nursery:
        for each in players:
            nursery.start_soon(partial(each.play, **how))
        yield
        nursery.cancel_scope.cancel()


def all_sent(players: Iterable[Exchange]) -> list[Sent]:
    """All updates that they have sent so far."""
    return [sent for each in players for sent in each.sent]


# ---- the service ----


def settings_for(
    players: Sequence[Exchange], redis_url: str, dsn: str, state_dir: Path, **changes: Mapping[str, Any]
) -> Settings:
    """Settings with short times; `changes` by section."""
    settings = attrs.evolve(
        Settings(),
        symbols=tuple(BASE),
        exchanges=tuple(ExchangeSettings(each.name, "127.0.0.1", each.port) for each in players),
        state_dir=state_dir,
    )
    sections: dict[str, dict[str, Any]] = {
        "http": {"port": 0},
        "redis": {"url": redis_url},
        "postgres": {"dsn": dsn},
        "aggregation": {"interval": 2_000, "grace": 200},
        "feeds": {"backoff_min": 20, "backoff_max": 100},
    }
    for section, values in changes.items():
        sections.setdefault(section, {}).update(values)
    return attrs.evolve(
        settings,
        **{name: attrs.evolve(getattr(settings, name), **values) for name, values in sections.items()},
    )


@attrs.define
class Answer:
    """An answer over HTTP."""

    status: int
    body: Any


async def http(
    url: str, method: str, path: str, *, headers: Mapping[str, str] | None = None, within: float = 20.0
) -> Answer:
    """Send one request, on a new connection."""
    host, port = url.removeprefix("http://").split(":")
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}:{port}", "Connection: close", "Content-Length: 0"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    with trio.fail_after(within):
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all("\r\n".join([*lines, "", ""]).encode())
            reply = b"".join([part async for part in stream])
    head, _, body = reply.partition(b"\r\n\r\n")
    is_json = b"json" in head.lower().partition(b"content-type:")[2].partition(b"\r")[0]
    return Answer(int(head.split()[1]), json.loads(body) if is_json else body.decode() or None)


def check_ledger(updates: Mapping[str, Any]) -> None:
    """Check both equations of the ledger."""
    assert updates["received"] == updates["accepted"] + sum(updates["rejected"].values()), updates
    gone = updates["cached"] + updates["expired"] + sum(updates["dropped"].values()) + updates["pending"]
    assert updates["accepted"] == gone, updates


class Service:
    """A service that runs in this process, queried over HTTP."""

    def __init__(self, running: Running, players: Sequence[Exchange]) -> None:
        self.running = running
        self.players = players
        self.before = len(all_sent(players))
        """The number of updates that were sent to earlier services."""
        self.url = running.url
        self.polls = 0

    async def get(self, path: str, **how: Any) -> Any:
        """The body of an answer, which must be 200."""
        answer = await http(self.url, "GET", path, **how)
        assert answer.status == 200, (path, answer)
        return answer.body

    async def ask(self, path: str, **how: Any) -> Answer:
        """Any answer to a GET."""
        return await http(self.url, "GET", path, **how)

    async def post(self, path: str, **how: Any) -> Answer:
        """Any answer to a POST."""
        return await http(self.url, "POST", path, **how)

    @property
    def updates(self) -> Counts:
        """The counters of all exchanges, without a request over HTTP."""
        return self.running.report().updates

    @asynccontextmanager
    async def still(self) -> AsyncIterator[list[Sent]]:
        """A block without new updates, in which all sent ones were accepted."""
        async with AsyncExitStack() as stack:
            for each in self.players:
                await stack.enter_async_context(each.turn)
            await self.received_all()
            yield all_sent(self.players)

    async def received_all(self) -> None:
        """Wait until it has accepted as many updates as it was sent."""
        total = len(all_sent(self.players)) - self.before
        await eventually(lambda: self.updates.accepted == total, what=f"{total} received")

    async def watch(self) -> None:
        """Check the ledgers periodically, until cancelled."""
        while True:
            health = await self.get("/health")
            check_ledger(health["updates"])
            for exchange in health["exchanges"].values():
                check_ledger(exchange["updates"])
            self.polls += 1
            await trio.sleep(0.1)


@asynccontextmanager
async def service(
    settings: Settings,
    players: Sequence[Exchange],
    *,
    clock: Clock | None = None,
    outside: AbstractAsyncContextManager[Outside] | None = None,
    watched: bool = True,
    all_received: bool = True,
) -> AsyncIterator[Service]:
    """The service, connected to the players, until the block ends and it has stopped in order.

    With `all_received` it stops once it has accepted all sent updates; with `watched` ledgers are checked.
    """
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        running = await nursery.start(partial(serve, settings, stopping, clock=clock, outside=outside))
        it = Service(running, players)
        await eventually(lambda: all(each.connected for each in players), what="connected")
        async with trio.open_nursery() as watching:
            if watched:
                watching.start_soon(it.watch)
            yield it
            if all_received:
                await it.received_all()
            watching.cancel_scope.cancel()
        stopping.set()
    report = running.report().updates
    check_ledger(attrs.asdict(report))
    assert report.pending == 0


def spools(state_dir: Path) -> list[Path]:
    """The files that stops have left."""
    return sorted(state_dir.glob("spool-*"))


# ---- what is right ----


def within_span(
    sent: Iterable[Sent], start: int, end: int, symbol: str, exchanges_: Collection[str] = ()
) -> list[Sent]:
    """The updates in [start, end), in the order of their time."""
    found = [
        each
        for each in sent
        if start <= each.timestamp < end
        and each.symbol == symbol
        and (not exchanges_ or each.exchange in exchanges_)
    ]
    return sorted(found, key=lambda each: (each.timestamp, each.exchange, each.order))


def check_summary(answer: Mapping[str, Any], sent: Iterable[Sent]) -> None:
    """An answer of /prices/aggregate is exact for the span that it names."""
    asked = () if answer["exchange"] is None else (answer["exchange"],)
    found = within_span(sent, answer["start"], answer["end"], answer["symbol"], asked)
    prices = [each.price for each in found]
    assert answer["updates"] == len(found), (answer, len(found))
    assert (answer["min_price"], answer["max_price"]) == (min(prices), max(prices)), answer
    # The order of two exchanges within the same ms is unknown.
    first = {each.exchange: each.price for each in reversed(found) if each.timestamp == found[0].timestamp}
    last = {each.exchange: each.price for each in found if each.timestamp == found[-1].timestamp}
    assert answer["open_price"] in first.values(), answer
    assert answer["close_price"] in last.values(), answer
    assert math.isclose(answer["average_price"], math.fsum(prices) / len(prices), rel_tol=1e-9)
    check_volumes(answer, found)


def check_volumes(answer: Mapping[str, Any], sent: Iterable[Sent]) -> None:
    """An answer, or a candle, has the volumes of these updates."""
    names = ("volume", "quote_volume", "buy_volume", "sell_volume", "volume_updates")
    told = tuple(answer[name] for name in names)
    assert all(map(_close, told, volumes_of(sent))), (told, volumes_of(sent))


Key = tuple[str, str, int]
Row = tuple[float, float, float, float, float, int]


def expected_rows(sent: Iterable[Sent], interval: int) -> dict[Key, Row]:
    """Average, min, max, open, close and count, by symbol, exchange and end."""
    groups: defaultdict[Key, list[Sent]] = defaultdict(list)
    for each in sorted(sent, key=lambda each: (each.timestamp, each.exchange, each.order)):
        end = (each.timestamp // interval + 1) * interval
        groups[each.symbol, each.exchange, end].append(each)
    return {key: row_of([each.price for each in group]) for key, group in groups.items()}


def row_of(prices: Sequence[float]) -> Row:
    """Average, min, max, open, close and count of prices in their order."""
    return math.fsum(prices) / len(prices), min(prices), max(prices), prices[0], prices[-1], len(prices)


def stored_rows(dsn: str) -> dict[Key, Row]:
    """The rows in PostgreSQL, in the order in which they were written; none before the table is made."""
    with suppress(psycopg.errors.UndefinedTable), psycopg.connect(dsn) as connection:
        found = connection.execute(
            "SELECT pair_name, exchange, (extract(epoch FROM timestamp) * 1000)::bigint, average_price,"
            " min_price, max_price, open_price, close_price, update_count FROM price_aggregates ORDER BY ctid"
        ).fetchall()
        return {row[:3]: row[3:] for row in found}
    return {}


Volumes = tuple[float | None, float | None, float | None, float | None, int]
"""Volume, quote volume, bought, sold, and how many updates told a volume."""


def expected_volumes(sent: Iterable[Sent], interval: int) -> dict[Key, Volumes]:
    """What rows say of volumes, by symbol, exchange and end."""
    groups: defaultdict[Key, list[Sent]] = defaultdict(list)
    for each in sent:
        groups[each.symbol, each.exchange, (each.timestamp // interval + 1) * interval].append(each)
    return {key: volumes_of(group) for key, group in groups.items()}


def volumes_of(sent: Iterable[Sent]) -> Volumes:
    """What some updates have traded: None for what none of them told."""
    told = [(each.volume, each.price, each.side) for each in sent if each.volume is not None]
    bought, sold = ([volume for volume, _, of in told if of == side] for side in ("buy", "sell"))
    return (
        math.fsum(volume for volume, _, _ in told) if told else None,
        math.fsum(volume * price for volume, price, _ in told) if told else None,
        math.fsum(bought) if bought or sold else None,
        math.fsum(sold) if bought or sold else None,
        len(told),
    )


def stored_volumes(dsn: str) -> dict[Key, Volumes]:
    """What the rows in PostgreSQL say of volumes."""
    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            "SELECT pair_name, exchange, (extract(epoch FROM timestamp) * 1000)::bigint, volume,"
            " quote_volume, buy_volume, sell_volume, volume_updates FROM price_aggregates"
        ).fetchall()
    return {row[:3]: row[3:] for row in found}


def wrong_volumes(stored: Mapping[Key, Volumes], expected: Mapping[Key, Volumes]) -> list[object]:
    """Rows of other volumes than expected."""
    return [
        (key, stored[key], expected[key])
        for key in stored.keys() & expected.keys()
        if not all(map(_close, stored[key], expected[key]))
    ]


def _close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-9)


def differences(stored: Mapping[Key, Row], expected: Mapping[Key, Row]) -> list[object]:
    """Rows that are missing, unexpected or wrong."""
    wrong: list[object] = [("missing", key) for key in expected.keys() - stored.keys()]
    wrong += [("unexpected", key) for key in stored.keys() - expected.keys()]
    for key in stored.keys() & expected.keys():
        ours, right = stored[key], expected[key]
        if ours[1:] != right[1:] or not math.isclose(ours[0], right[0], rel_tol=1e-9):
            wrong.append((key, ours, right))
    return wrong


async def rows_are_right(
    dsn: str,
    sent: Sequence[Sent],
    interval: int = 2_000,
    *,
    until: int | None = None,
    within: float = 5.0,
    only: Collection[str] = (),
) -> None:
    """Wait until every interval that ended up to `until` (ms) has its row, and there are no others.

    `only`: check only these exchanges' rows.
    """
    limit = max(each.timestamp for each in sent) + interval if until is None else until
    limit -= limit % interval
    expected = {key: row for key, row in expected_rows(sent, interval).items() if key[2] <= limit}
    traded = {key: told for key, told in expected_volumes(sent, interval).items() if key in expected}
    wrong: list[object] = []

    async def right() -> bool:
        stored = await trio.to_thread.run_sync(stored_rows, dsn)
        stored = {key: row for key, row in stored.items() if key[2] <= limit and (key[1] in only or not only)}
        wrong[:] = differences(stored, expected)
        if not wrong:  # those in `expected` are all there
            wrong[:] = wrong_volumes(await trio.to_thread.run_sync(stored_volumes, dsn), traded)
        return not wrong

    try:
        await eventually(right, within=within, every=0.1)
    except AssertionError:
        raise AssertionError(f"{len(wrong)} rows of {len(expected)} wrong: {wrong[:5]}") from None


def window_differences(url: str, sent: Iterable[Sent], until: int, since: int = 0) -> list[object]:
    """Updates with a timestamp in [since, until) (ms) that Redis lacks or has more than once."""
    wanted: defaultdict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for each in sent:
        if since <= each.timestamp < until:
            wanted[each.exchange, each.symbol].append((each.timestamp, each.price))
    wrong: list[object] = []
    with redis.Redis.from_url(url) as client:
        for (exchange, symbol), updates in wanted.items():
            held = client.zrangebyscore(f"prices:{exchange}:{symbol}", since, f"({until}", withscores=True)
            found = sorted((int(score), float(member.split(b":")[0])) for member, score in held)
            if found != sorted(updates):
                wrong.append((exchange, symbol, "members", len(found), "sent", len(updates)))
            bars: Counter[int] = Counter()
            for field, value in client.hgetall(f"bars:{exchange}:{symbol}").items():
                start, _ = read_field(field)
                if since <= start and start + 1_000 <= until:
                    bars[start // 1_000] += read_bar(value, start).count
            whole = range(-(-since // 1_000), until // 1_000)
            right = Counter(time // 1_000 for time, _ in updates if time // 1_000 in whole)
            if bars != right:
                wrong.append((exchange, symbol, "bars", bars - right, "sent", right - bars))
    return wrong


async def window_is_whole(url: str, players: Sequence[Exchange], *, within: float, since: int = 0) -> float:
    """Wait until window and bars have all updates from before this moment, each once; returns the seconds.

    It also waits for late updates that are still on their way.
    """
    wrong: list[object] = []
    until = now_ms()

    async def whole() -> bool:
        sent = all_sent(players)
        try:
            wrong[:] = await trio.to_thread.run_sync(window_differences, url, sent, until, since)
        except redis.RedisError as error:
            wrong[:] = [error]
        return not wrong

    try:
        return await eventually(whole, within=within, every=0.05)
    except AssertionError:
        raise AssertionError(wrong) from None
