"""The use cases over stores in memory, and a model that computes the expected answers independently."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from fractions import Fraction

import attrs
import trio
from hypothesis import strategies as st
from mirror_filling import MirrorFilling, WrittenChanges
from redis_filling import RedisBars
from structlog.testing import capture_logs
from trio.testing import MockClock

from marketflow.adapters.cache.memory import MemoryFlush, MemoryShelf, MemoryWindow
from marketflow.adapters.db.memory import MemoryStore
from marketflow.app.cluster.cluster_stream import ClusterStream
from marketflow.app.instruments.stores import StoreState
from marketflow.app.knowledge import Standing, View, Views
from marketflow.app.ports import Batch, StoreAway, Updates
from marketflow.app.questions.candles import CandlePages
from marketflow.app.questions.newest import NewestUpdates
from marketflow.app.questions.past import PastUpdates
from marketflow.app.questions.queries import Queries
from marketflow.app.questions.spans import Spans
from marketflow.app.share.known_bars import BookBars
from marketflow.app.share.lease import Lease
from marketflow.app.share.making import ShareOptions, make_share
from marketflow.app.share.spooling import SpooledBar, SpoolFailed
from marketflow.domain.bars import Bar, by_second
from marketflow.domain.columns import Columns
from marketflow.domain.periods import HOUR, MINUTE, Span, floor_to
from marketflow.domain.prices import Pair

NOON = floor_to(1_795_343_351_549, HOUR)
"""The Unix ms at which Trio's virtual clock shows 0."""
EXCHANGES = ("exchange1", "exchange2")
TEST_EXCHANGES = ("test1",)
SYMBOLS = ("BTCUSDT", "ETHUSDT")

SEEDS = st.builds(lambda seed, _: seed, st.integers(0, 2**32), st.random_module())
"""Of what a test makes up at random, and of the order in which Trio runs tasks that are ready.

Without `random_module` Hypothesis seeds the latter with 0 for each example: all would be played in one order.
"""


BOOK = "book"
REDIS_ALONE = "redis"
MIRRORS = "mirrors"
"""What fills the ports of questions and the live stream. Tests get one of them as the fixture `filling`."""


def run_virtual(main: Callable[[], Awaitable[None]]) -> None:
    """Run an async function on its own virtual clock, for tests that Hypothesis repeats."""
    with capture_logs():
        trio.run(main, clock=MockClock(autojump_threshold=0))


class WallClock:
    """A wall clock that runs with Trio's clock, except for steps that a test makes."""

    def __init__(self) -> None:
        self.offset = 0
        """The sum of the steps, in ms."""

    def now(self) -> int:
        return NOON + round(trio.current_time() * 1_000) + self.offset


@attrs.frozen
class Sent:
    """An update in the model."""

    exchange: str
    symbol: str
    price: float
    timestamp: int
    order: int
    """The order of receipt."""


def batch_of(
    exchange: str, updates: Iterable[tuple[str, float, int]], *, number: int = 0, rejected: int = 0
) -> Batch:
    """The batch that a worker makes of lines: (symbol, price, timestamp) in the order of receipt."""
    columns: dict[str, tuple[list[int], list[float]]] = {}
    for symbol, price, timestamp in updates:
        timestamps, prices = columns.setdefault(symbol, ([], []))
        timestamps.append(timestamp)
        prices.append(price)
    groups = [
        Updates(symbol, Columns(timestamps, prices), by_second(timestamps, prices))
        for symbol, (timestamps, prices) in columns.items()
    ]
    return Batch(
        exchange=exchange,
        number=number,
        received=sum(len(group.columns) for group in groups) + rejected,
        rejected={"price": rejected} if rejected else {},
        updates=groups,
        received_at=0,
        received_monotonic=trio.current_time() if trio.lowlevel.in_trio_run() else 0.0,
    )


@attrs.frozen
class Summary:
    """The content of a bar, computed independently."""

    count: int
    mean: Fraction
    min: float
    max: float
    open: float
    open_time: int
    close: float
    close_time: int

    def says(self, bar: Bar, *, tolerance: float = 1e-9) -> bool:
        """Whether the bar is equal: exactly, except for the mean, which has a relative tolerance."""
        # For the smallest numbers half a unit in the last place is more; each rounding may cost one.
        least = self.count * 5e-324
        return (
            (bar.count, bar.min, bar.max, bar.open, bar.open_time, bar.close, bar.close_time)
            == (self.count, self.min, self.max, self.open, self.open_time, self.close, self.close_time)
            and math.isfinite(bar.average)
            and abs(Fraction(bar.average) - self.mean)
            <= max(self.mean * Fraction(tolerance), Fraction(least))
        )


def summary_of(updates: Iterable[Sent]) -> Summary:
    """The summary of one or more updates, computed from first principles."""
    ordered = sorted(updates, key=lambda update: (update.timestamp, update.exchange, update.order))
    prices = [update.price for update in ordered]
    return Summary(
        len(ordered),
        sum(map(Fraction, prices)) / len(prices),
        min(prices),
        max(prices),
        ordered[0].price,
        ordered[0].timestamp,
        ordered[-1].price,
        ordered[-1].timestamp,
    )


class WatchedWindow(MemoryWindow):
    """A window that records attempted writes, and delays them if a test wants it."""

    def __init__(
        self, *, boot: str, shelf: MemoryShelf | None = None, changes: WrittenChanges | None = None
    ) -> None:
        super().__init__(boot=boot, shelf=shelf)
        self.changes = WrittenChanges() if changes is None else changes
        self.attempts: list[MemoryFlush] = []
        self.write_seconds = 0.0
        self.read_seconds = 0.0
        self.reads = 0
        """How often all bars were asked for."""
        self.hung = False
        """While it is set, writes are accepted but never acknowledged."""
        self.trims = 0
        self.after_edges: Callable[[], None] = lambda: None
        """Called after edges have been read, before they are returned."""
        self.prices_of: list[Pair] = []
        """The pairs whose prices were read by `prices`, once for each span."""
        self.edges_of: list[Pair] = []
        """The pairs whose raw updates were read by `edges`."""

    async def post(self, flush: MemoryFlush) -> bool:
        self.attempts.append(flush)
        self.trims += bool(flush.older_than)
        await trio.sleep(self.write_seconds)
        return await super().post(flush)

    def _write(self, write: MemoryFlush) -> None:
        super()._write(write)
        self.changes.note(self._boot, write)

    async def collect(self) -> bool:
        if self.hung:
            await trio.sleep(1)
            raise StoreAway("no answer in time")
        return await super().collect()

    async def all_bars(self, pairs):
        self.reads += 1
        found = copy.deepcopy(await super().all_bars(pairs))
        await trio.sleep(self.read_seconds)
        return found

    async def edges(self, pairs, spans):
        found = await super().edges(pairs, spans)
        self.edges_of += pairs
        self.after_edges()
        return found

    async def prices(self, spans):
        found = await super().prices(spans)
        self.prices_of += [pair for pair, _ in spans]
        return found

    def snapshot(self) -> MemoryShelf:
        """The current content of the store, for `restore`."""
        return copy.deepcopy(self.shelf)

    def restore(self, snapshot: MemoryShelf) -> None:
        """Restore an earlier content, like a store that was started from an older file."""
        older = copy.deepcopy(snapshot)
        self.shelf.members, self.shelf.bars = older.members, older.bars
        self.shelf.marker, self.shelf.lock = older.marker, older.lock

    def successor(self, boot: str) -> WatchedWindow:
        """The same store, as another boot sees it."""
        window = WatchedWindow(boot=boot, shelf=self.shelf, changes=self.changes)
        window.away = self.away
        return window


class MemorySpool:
    """Fills the port Spool."""

    def __init__(self) -> None:
        self.bars: list[SpooledBar] = []
        self.saves = 0
        self.full = False

    async def load(self) -> Sequence[SpooledBar]:
        await trio.lowlevel.checkpoint()
        return list(self.bars)

    async def save(self, bars: Sequence[SpooledBar], within: float = 1.0) -> None:  # noqa: ARG002
        if bars and self.full:
            raise SpoolFailed("/state", "No space left on device")
        self.bars = list(bars)
        self.saves += 1


class FreeLease:
    """The lease of a store that nobody else wants."""

    def __init__(self) -> None:
        self.state = StoreState("free")
        self.state.up = True
        self.another = False
        self.leased_until = math.inf

    async def ensure(self) -> None:
        pass


def lose_lock(store: MemoryStore) -> None:
    """Lose the lock, like the connection of a boot that has ended."""
    away = store.away
    store.away = True
    store.away = away


class World:
    """One boot: the use cases over stores in memory, and a model of what was accepted."""

    def __init__(
        self,
        *,
        boot: str = "boot1",
        limit: int = 1_000_000,
        interval: int = MINUTE,
        window_length: int = MINUTE,
        replay_memory: int = 64 * 1024**2,
        flush_interval: float = 0.05,
        retention: int | None = None,
        window: WatchedWindow | None = None,
        store: MemoryStore | None = None,
        spool: MemorySpool | None = None,
        sent: list[Sent] | None = None,
        clock: WallClock | None = None,
        mode_exchanges: Sequence[str] = EXCHANGES,
        begun: bool = True,
        filling: str = BOOK,
    ) -> None:
        """Unless `begun`, the book does not accept updates yet.

        If the `filling` is not BOOK, questions are answered as on a node that has no feeds and no book.
        """
        self.clock = clock or WallClock()
        self.interval = interval
        self.window_length = window_length
        self.exchanges = [*EXCHANGES, *TEST_EXCHANGES]
        self.pairs = [(exchange, symbol) for exchange in self.exchanges for symbol in SYMBOLS]
        self.window = window or WatchedWindow(boot=boot)
        self.store = store or MemoryStore(interval)
        self.spool = spool or MemorySpool()
        self.sent: list[Sent] = [] if sent is None else sent
        """All accepted updates, including those of earlier boots."""
        self.received = self.rejected = 0
        self.share = make_share(
            boot=boot,
            limits=dict.fromkeys(self.exchanges, limit),
            symbols=SYMBOLS,
            generated=TEST_EXCHANGES,
            window=self.window,
            store=self.store,
            spool=self.spool,
            clock=self.clock,
            options=ShareOptions(
                interval=interval,
                grace=2_000,
                lateness=2 * MINUTE,
                retention=retention,
                window_length=window_length,
                replay_memory=replay_memory,
                flush_interval=round(flush_interval * 1_000),
                patience=1_000,
            ),
        )
        self.book, self.flusher, self.aggregator = self.share.book, self.share.flusher, self.share.aggregator
        self.redis, self.postgres = self.share.redis, self.share.postgres
        if begun:
            self.book.begin(self.clock.now())
        self.bars: BookBars | RedisBars | ClusterStream = self.share.bars
        self.standing: Standing = self.share.standing
        self.views: Views = View(self.share.bars, self.share.standing)
        self.filling = filling
        self.redis_bars = RedisBars(self.window, self.pairs, clock=self.clock, interval=interval)
        self.mirrors = MirrorFilling(self.window, self.window.changes, self.pairs, clock=self.clock)
        if filling == REDIS_ALONE:
            self.bars = self.standing = self.redis_bars
            self.views = View(self.redis_bars, self.redis_bars)
        elif filling == MIRRORS:
            self.bars, self.views = self.mirrors.stream, self.mirrors.views
        self.spans = Spans(
            views=self.views,
            window=self.window,
            store=self.store,
            interval=interval,
            window_length=window_length,
            retention=retention,
        )
        self.queries = Queries(
            symbols=SYMBOLS,
            exchanges=self.exchanges,
            exchanges_of_mode=lambda: mode_exchanges,
            newest=NewestUpdates(views=self.views, store=self.store),
            past=PastUpdates(self.spans),
            spans=self.spans,
            pages=CandlePages(self.spans, interval=interval, grace=2_000),
            clock=self.clock,
        )

    @property
    def now(self) -> int:
        return self.clock.now()

    # ---- in ----

    def send(self, exchange: str, updates: Sequence[tuple[str, float, int]], *, rejected: int = 0) -> None:
        """Enter a batch of (symbol, price, timestamp) now."""
        self.note(exchange, updates, rejected=rejected)
        self.book.apply(batch_of(exchange, updates, rejected=rejected))

    def note(self, exchange: str, updates: Sequence[tuple[str, float, int]], *, rejected: int = 0) -> None:
        """Record updates in the model that enter in another way."""
        self.received += len(updates) + rejected
        self.rejected += rejected
        for symbol, price, timestamp in updates:
            self.sent.append(Sent(exchange, symbol, price, timestamp, len(self.sent)))

    def send_one(self, price: float, *, age: int = 0, exchange: str = "exchange1", symbol: str = "BTCUSDT"):
        """Send one update that is `age` ms old."""
        self.send(exchange, [(symbol, price, self.now - age)])

    # ---- what fills the ports of questions ----

    @property
    def knows_nothing(self) -> bool:
        """Whether no question about a span can be answered, because only Redis could and it is away."""
        return self.filling != BOOK and self.window.away

    async def answerable(self) -> None:
        """Wait until questions can know all sent updates: from Redis alone, once it has acknowledged them.

        An emptied Redis has the bars again once the flusher has noticed it and a later write has succeeded.
        """
        if self.filling == BOOK or self.window.away:
            return
        if self.window.marker is None:
            await until(lambda: self.window.marker is not None, seconds=70)
            writes = self.window.writes
            await until(lambda: self.window.writes > writes, seconds=70)
        await until(lambda: self.flusher.up and self.book.flushes.drained, seconds=70)

    def forget_bars(self, before: int) -> None:
        """Forget bars from before this time (ms, the end of an interval), as if Redis had lost them."""
        self.book.bars.forget(before)
        self.redis_bars.forget(before)
        self.mirrors.forget(before)

    def adopt_row(self, pair: Pair, end: int, bar: Bar) -> None:
        """Note that the row of the interval that ends at `end` has updates whose bars Redis has lost."""
        self.book.rows.adopted.adopt(pair, end, bar, lacks=None)
        self.redis_bars.forget(end)
        self.mirrors.forget(end)

    # ---- run ----

    async def lease_database(self) -> None:
        """As a start does; the flusher takes the other lease as soon as it can."""
        await Lease(database=self.share.leases.database, window=FreeLease()).take()

    async def lease_window(self) -> None:
        """As a start does."""
        await Lease(database=FreeLease(), window=self.share.leases.window).take()

    @asynccontextmanager
    async def running(self, *, aggregating: bool = True, slowly: bool = False):
        """The flusher (and the aggregator) at work, and cancelled in the end: a crash.

        `slowly` writes rows once a minute only: for tests of hours, which take time on a virtual clock too.
        """
        async with trio.open_nursery() as nursery:
            if aggregating:
                await self.lease_database()
                nursery.start_soon(self._write_slowly if slowly else self.aggregator.run)
            nursery.start_soon(self.flusher.run)
            yield nursery
            nursery.cancel_scope.cancel()

    async def _write_slowly(self) -> None:
        while True:
            await trio.sleep((MINUTE - (self.now - 2_100) % MINUTE) / 1_000)
            await self.aggregator.write_due()

    def successor(self, boot: str, **options) -> World:
        """The next boot on the same stores; the lock of this boot is released."""
        lose_lock(self.store)
        return World(
            boot=boot,
            window=self.window.successor(boot),
            store=self.store,
            spool=self.spool,
            sent=self.sent,
            clock=self.clock,
            interval=self.interval,
            filling=self.filling,
            **options,
        )

    # ---- the model ----

    def of(self, pair: tuple[str, str] | None = None, span: Span | None = None) -> list[Sent]:
        """The accepted updates, filtered by pair and span if these are given."""
        return [
            update
            for update in self.sent
            if (pair is None or (update.exchange, update.symbol) == pair)
            and (span is None or update.timestamp in span)
        ]

    def expected_rows(self, before: int) -> dict[tuple[str, str, int], Summary]:
        """The expected rows of intervals that ended at or before `before` (ms)."""
        groups: dict[tuple[str, str, int], list[Sent]] = {}
        for update in self.sent:
            end = floor_to(update.timestamp, self.interval) + self.interval
            if end <= before:
                groups.setdefault((update.exchange, update.symbol, end), []).append(update)
        return {key: summary_of(group) for key, group in groups.items()}

    def check_rows(self, before: int) -> None:
        """Check that the rows of intervals that ended at or before `before` (ms) are the model's."""
        expected = self.expected_rows(before)
        rows = {key: row for key, row in self.store.rows.items() if key[2] <= before}
        assert rows.keys() == expected.keys()
        for key, row in rows.items():
            assert expected[key].says(row.bar), (key, row, expected[key])

    def check_ledgers(self) -> None:
        """Check both equations of the ledger for each exchange, and that no counter is too large."""
        for ledger in self.book.ledgers.values():
            assert ledger.received == ledger.accepted + ledger.rejected.total()
            lost = ledger.expired + ledger.dropped.total()
            assert ledger.accepted == ledger.cached + lost + ledger.pending
            assert min(ledger.cached, ledger.expired, ledger.pending, *ledger.dropped.values(), 0) == 0
        ledgers = self.book.ledgers.values()
        assert sum(ledger.cached for ledger in ledgers) == self.book.flushes.latency.read().count
        assert sum(ledger.received for ledger in ledgers) == self.received
        assert sum(ledger.rejected.total() for ledger in ledgers) == self.rejected

    def window_prices(self, span: Span) -> dict[tuple[str, str], list[tuple[int, float]]]:
        """(timestamp, price) of all members in the window within a span, sorted."""
        found = {}
        for pair, held in self.window.members.items():
            inside = sorted((each.timestamp, each.price) for each in held.values() if each.timestamp in span)
            if inside:
                found[pair] = inside
        return found

    def sent_prices(self, span: Span) -> dict[tuple[str, str], list[tuple[int, float]]]:
        """(timestamp, price) of all accepted updates within a span, sorted."""
        found: dict[tuple[str, str], list[tuple[int, float]]] = {}
        for update in sorted(self.sent, key=lambda update: (update.timestamp, update.price)):
            if update.timestamp in span:
                found.setdefault((update.exchange, update.symbol), []).append(
                    (update.timestamp, update.price)
                )
        return found

    def check_window(self) -> None:
        """Check that the window has each accepted update of its length once, and the bars of all seconds."""
        span = Span(self.now - self.window_length, self.now + 10_000)
        assert self.window_prices(span) == self.sent_prices(span)
        self.check_stored_bars()

    def check_stored_bars(self) -> None:
        """Check that the bars in the window count every accepted update of the last hour."""
        groups: dict[tuple[str, str, int], list[Sent]] = {}
        for update in self.sent:
            if update.timestamp >= self.now - HOUR + MINUTE:
                groups.setdefault(
                    (update.exchange, update.symbol, floor_to(update.timestamp, 1_000)), []
                ).append(update)
        for (exchange, symbol, second), updates in groups.items():
            of_pair = self.window.stored_bars[exchange, symbol]
            bars = [bar for (start, _), bar in of_pair.items() if start == second]
            assert sum(bar.count for bar in bars) == len(updates)


async def play(world: World, seconds: float, *, every: float = 1.0, seed: int = 1) -> None:
    """Send three updates of now from each exchange, again and again. Times in seconds."""
    rng, end = random.Random(seed), trio.current_time() + seconds
    while trio.current_time() < end:
        for exchange in EXCHANGES:
            world.send(exchange, [(rng.choice(SYMBOLS), rng.uniform(1, 100), world.now) for _ in range(3)])
        await trio.sleep(every)


async def until(condition: Callable[[], bool], *, seconds: float = 10.0) -> None:
    """Wait for a condition, with a time limit on the virtual clock."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - any condition, on a virtual clock
            await trio.sleep(0.01)


def only(name: str | None) -> tuple[str, ...] | None:
    """The name as the list of a question; None: all."""
    return None if name is None else (name,)
