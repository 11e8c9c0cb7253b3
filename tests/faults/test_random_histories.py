"""Random histories of a service and its successors, with the real composition root, on a virtual clock."""

from __future__ import annotations

import itertools
import random
from collections import deque
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio
from builders import NOON, SEEDS, WallClock, WatchedWindow, lose_lock, run_virtual
from hypothesis import HealthCheck, example, given
from hypothesis import settings as options
from hypothesis import strategies as st
from rig import Sent, check_ledger, differences, expected_rows, settings_for

from marketflow.adapters.db.memory import MemoryStore
from marketflow.adapters.exchange.fair import FairPrices
from marketflow.adapters.exchange.generator import GeneratorSource
from marketflow.adapters.exchange.reading import LineReader
from marketflow.config.settings import ExchangeSettings
from marketflow.outside import Outside
from marketflow.service import serve
from marketflow.sources import line_decoder, pace_of

INTERVAL = 5_000
SYMBOLS = ("BTCUSDT", "DOGEUSDT")
LIVE = ("exchange1", "exchange2")
STEPS = ["redis away", "redis back", "postgres away", "postgres back", "test", "live", "restart"]


class Line:
    """A source: an exchange whose lines wait until they are read."""

    def __init__(self, exchange):
        self.exchange = exchange
        self.waiting = deque()
        self.decode = self.reader = None

    async def run(self, intake):
        await trio.lowlevel.checkpoint()
        intake.connected()
        await self.reader.read(intake, self)

    def has_come(self):
        return bool(self.waiting)

    async def receive(self):
        while not self.waiting:  # noqa: ASYNC110 - on a virtual clock
            await trio.sleep(0.02)
        return self.waiting.popleft()


class Spool:
    def __init__(self):
        self.bars = []

    async def load(self):
        return list(self.bars)

    async def save(self, bars, within):  # noqa: ARG002
        self.bars = list(bars)


class History:
    """The state that outlives a boot, and a model of what was sent."""

    def __init__(self, seed):
        self.rng, self.clock, self.boots = random.Random(seed), WallClock(), itertools.count(1)
        self.lines = {name: Line(name) for name in LIVE}
        self.window, self.store, self.spool = WatchedWindow(boot="boot0"), MemoryStore(INTERVAL), Spool()
        self.sent, self.generated = [], 0

    @asynccontextmanager
    async def outside(self, settings):
        boot = f"boot{next(self.boots)}"
        self.window = self.window.successor(boot)
        lose_lock(self.store)
        generator, decode = settings.generator, line_decoder(settings)
        for line in self.lines.values():
            line.decode, line.reader = decode, LineReader(self.clock, pace_of(settings))
        yield Outside(
            boot=boot,
            clock=self.clock,
            entropy=self.rng,
            window=self.window,
            store=self.store,
            spool=self.spool,
            sources={
                "live": list(self.lines.values()),
                "test": [
                    GeneratorSource(name, FairPrices(name, SYMBOLS, 0), generator.rate, self.clock, decode)
                    for name in generator.exchanges
                ],
            },
            front=self.front,
        )

    async def front(self, questions, stopping, *, task_status):
        self.questions = questions
        task_status.started("nowhere")
        await stopping.wait()

    def send(self, count):
        line = self.lines[self.rng.choice(LIVE)]
        for _ in range(count):
            time, price = self.clock.now() - self.rng.choice([0, 100, 4_000]), self.rng.uniform(1, 9)
            sent = Sent(line.exchange, self.rng.choice(SYMBOLS), price, time, len(self.sent), 0)
            self.sent.append(sent)
            line.waiting.append(sent.line)

    async def do(self, step):
        match step:
            case "redis away" | "redis back":
                self.window.away = step.endswith("away")
            case "postgres away" | "postgres back":
                self.store.away = step.endswith("away")
            case "test" | "live":
                await self.questions.modes.switch(step)
            case int():
                self.send(step)
            case float():
                await trio.sleep(step)

    @asynccontextmanager
    async def boot(self, settings):
        stopping = trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve, settings, stopping, outside=self.outside(settings)))
            yield
            stopping.set()
        await trio.sleep(0.001)  # No two boots start in the same ms: their sequences begin with it.
        report = self.check()
        assert report.updates.pending == 0
        self.generated += report.exchanges["test1"].updates.accepted

    def check(self):
        report = self.questions.health.report()
        for each in report.exchanges.values():
            check_ledger(attrs.asdict(each.updates))
        return report


@given(
    st.lists(
        st.one_of(st.sampled_from(STEPS), st.integers(1, 9), st.sampled_from([0.07, 0.9, 3.1])), max_size=25
    ),
    SEEDS,
)
@example([7, 0.9, "redis away", 8, 0.9, "restart", 5, "redis back"], 1)
@example(["redis away", "postgres away", 9, 3.1, "test", 3.1, "restart", "restart", 0.9], 2)
@options(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_happens_the_ledgers_add_up_and_the_rows_are_right(steps, seed):
    """With outages of both stores, switches and restarts, the rows are exactly those of a simple model."""

    async def main():
        players = [ExchangeSettings(name, "127.0.0.1", 1) for name in LIVE]
        settings = settings_for([], "redis://localhost", "postgresql://localhost/x", "/nowhere")
        settings = attrs.evolve(
            settings,
            exchanges=tuple(players),
            generator=attrs.evolve(settings.generator, exchanges=("test1",), rate=2.0),
            aggregation=attrs.evolve(settings.aggregation, interval=INTERVAL),
        )
        history, left = History(seed), [*steps, "restart"]
        while left:
            async with history.boot(settings):
                while left and (step := left.pop(0)) != "restart":
                    await history.do(step)
                    history.check()
        async with history.boot(settings):
            history.window.away = history.store.away = False
            await trio.sleep(2 * INTERVAL / 1_000)
            assert not any(line.waiting for line in history.lines.values())
            rows = {
                (symbol, exchange, end): (bar.average, bar.min, bar.max, bar.open, bar.close, bar.count)
                for (exchange, symbol, end), bar in (
                    (key, row.bar) for key, row in history.store.rows.items()
                )
            }
        live = {key: row for key, row in rows.items() if key[1] in LIVE}
        assert not differences(live, expected_rows(history.sent, INTERVAL))
        assert sum(row[-1] for key, row in rows.items() if key[1] == "test1") == history.generated
        assert history.clock.now() > NOON

    run_virtual(main)
