"""One history: processes of the service that come and go in simulated surroundings."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final

import trio

from marketflow.adapters.exchange.reading import LineReader
from marketflow.app.ports import StoreTaken
from marketflow.app.share.ledger import SHUTDOWN
from marketflow.app.share.spooling import BarsLost
from marketflow.failures import FAILED, problems_of
from marketflow.outside import Outside
from marketflow.service import serve
from marketflow.sources import checks_of, line_decoder, pace_of
from tests.simulation.checks import WHOLE_SECONDS, Checks
from tests.simulation.disk import SimulatedDisk, SimulatedSpool
from tests.simulation.exchanges import (
    GoodLine,
    Rules,
    SimulatedExchange,
    SimulatedSource,
    judged,
    judged_trade,
)
from tests.simulation.faults import Faults
from tests.simulation.model import Interval, Model, Update
from tests.simulation.plan import LIVE, TEST, Plan, settings_of
from tests.simulation.process import Process, SimulatedClock, Wrong, ends_within, quiet_front, true_time
from tests.simulation.scheduling import Steps
from tests.simulation.stores import (
    Link,
    SimulatedPostgres,
    SimulatedRedis,
    SimulatedStore,
    SimulatedWindow,
)
from tests.simulation.trades import KINDS, Numbering, Sieve, Trade
from tests.simulation.venues import SimulatedVenue, venue_decoder
from tests.simulation.volumes import Telling
from tests.simulation.watching import Watch

PAUSES: Final = (0.01, 0.3, 2.0, 6.0)
"""Seconds until an ended process is started again: one is drawn."""
SNAPSHOT_SECONDS: Final = 2.0
"""How often the stores' states are kept, for those that come back older."""
HARMLESS: Final = frozenset({"postgres refuses rows", "mode switched", "exchange bursts", "exchange breaks"})
"""Faults that must not hold up rows; those that are refused aside."""
WELL_SECONDS: Final = 5.0
"""So long after the last trouble of Redis a stop has everything written to it."""
FORGETFUL: Final = frozenset(
    {"postgres older", "spool damaged", "clock ahead", "clock days ahead", "clock behind"}
)
"""Faults after which a store may not have what it, or the spool, has had."""
AFTER_THE_LAST: Final = 0.01
"""Seconds from the last write of a stop until it has given the lease back, at most, if Redis is quick."""
LEEWAY: Final = 0.1
"""Seconds that what was received may take to Redis beyond the flush interval."""


MOST_SECONDS: Final = 300.0
"""A history takes a third of that at most. If it takes longer, something waits for ever."""
ORDERLY: Final = frozenset({"stopped", "bars lost"})
"""Ends of a process that has come to the end of its work."""
KEEPS_ALL: Final = ORDERLY | {"cancelled", "taken"}
"""Ends at which nothing is lost that is not told."""


class World:
    """Everything of one history."""

    def __init__(self, plan: Plan, steps: Steps, coverage: Counter[str]) -> None:
        """`coverage` counts what has happened."""
        self.plan = plan
        self.steps = steps
        self.coverage = coverage
        self.log: list[str] = []
        """What has happened, in words."""
        self.model = Model(plan.interval)
        self.redis, self.postgres = SimulatedRedis(), SimulatedPostgres()
        self.clock = SimulatedClock()
        self.processes: list[Process] = []
        """Those that run, the oldest first."""
        self.disk = SimulatedDisk()
        """What was spooled."""
        self.watch = Watch(self)
        self._rng = self.generator("world")
        self._checks = Checks(self)
        self._traffic_over = False
        self._boots = 0
        self._ended: dict[str, str] = {}
        """How processes have ended, by boot."""
        self._orders = 0
        self._troubles = 0
        self._trouble_ended = -math.inf
        """When something was last wrong with Redis, or with a way to it."""
        self.snapshots: list[tuple[Callable[[], None], Callable[[], None]]] = []
        self.exchanges = {
            name: SimulatedExchange(
                name,
                plan.symbols,
                self.generator(name),
                true_time,
                plan.tick,
                interval=plan.interval,
                lateness=plan.lateness,
                step=self.step,
                telling=Telling(plan.symbols, self.generator(f"volumes {name}")) if plan.volumes else None,
                numbering=self._numbering(name),
            )
            for name in (*LIVE, *TEST)
        }
        self.settings = settings_of(plan)
        self.limits = {name: plan.max_pending // len(names) for names in (LIVE, TEST) for name in names}
        """Updates that may be pending, by exchange."""
        self.postgres.latency = self._rng.choice((0.001, 0.02, 0.5))
        self._disturbances = 0
        self.quiet_since = 0.0
        """When the last fault ended that may hold up rows; inf while there is one."""
        self.redis_forgot_at = -math.inf
        """When Redis has last lost something that it had."""

    def _numbering(self, name: str) -> Numbering | None:
        """The ids of an exchange's trades; None if they have none."""
        kinds = dict(zip(LIVE, self.plan.ids or (), strict=False))
        kind = next((each for each in KINDS if each == kinds.get(name)), None)
        return None if kind is None else Numbering(kind, self.generator(f"ids {name}"))

    def generator(self, purpose: str) -> random.Random:
        """A generator of its own, so that what one part draws does not shift what another gets."""
        return random.Random(f"{purpose} {self.plan.seed}")

    def step(self) -> int:
        """The number of the present step of all tasks."""
        return self.steps.count

    def note(self, text: str) -> None:
        """Keep for the log."""
        self.log.append(f"{trio.current_time():8.3f}  {text}")

    @contextmanager
    def redis_in_trouble(self) -> Iterator[None]:
        """Within it something is wrong with Redis, or with a way to it."""
        self._troubles += 1
        try:
            yield
        finally:
            self._troubles -= 1
            self._trouble_ended = trio.current_time()

    @property
    def redis_well_since(self) -> float:
        """Since when nothing is wrong with Redis, or a way to it; inf while something is."""
        return math.inf if self._troubles else self._trouble_ended

    @contextmanager
    def disturbed(self, kind: str) -> Iterator[None]:
        """Within it a fault of that kind happens."""
        if kind in HARMLESS:
            yield
            return
        self._disturbances += 1
        self.quiet_since = math.inf
        try:
            yield
        finally:
            self._disturbances -= 1
            if not self._disturbances:
                self.quiet_since = trio.current_time()

    # ---- the history ----

    async def run(self) -> None:
        """All of it: faults, calm, and the end.

        Raises:
            Wrong: a promise was broken.
        """
        await ends_within(MOST_SECONDS, self._run)

    async def _run(self) -> None:
        checks = self._checks
        self.steps.after_each = checks.check_ledgers
        self.postgres.written = checks.check_write
        self.postgres.deleted = self.watch.check_deletion
        self.redis.robbed = checks.robbed
        self.redis.read_ids = checks.check_members
        self.redis.two_writers = self.postgres.two_writers = checks.two_writers
        async with trio.open_nursery() as nursery:
            for exchange in self.exchanges.values():
                nursery.start_soon(exchange.run)
            nursery.start_soon(self._take_snapshots)
            nursery.start_soon(checks.watch_writers)
            nursery.start_soon(self.watch.run)
            async with trio.open_nursery() as living:
                living.start_soon(self._keep_serving, living)
                async with trio.open_nursery() as happening:
                    faults = Faults(self, living)
                    for fault in self.plan.faults:
                        happening.start_soon(faults.inflict, fault)
                    happening.start_soon(trio.sleep, self.plan.seconds)
                    happening.start_soon(checks.ask_now_and_then)
                await checks.calm()
                living.cancel_scope.cancel()
            nursery.cancel_scope.cancel()

    async def _keep_serving(self, nursery: trio.Nursery) -> None:
        """Whenever no process runs, start one."""
        while True:
            process = self.start(nursery)
            await process.ended.wait()
            while self.processes:
                await self.processes[0].ended.wait()
            await trio.sleep(self._rng.choice(PAUSES))

    async def _take_snapshots(self) -> None:
        while True:
            self.snapshots.append((self.redis.snapshot(), self.postgres.snapshot()))
            await trio.sleep(SNAPSHOT_SECONDS)

    # ---- processes ----

    def start(self, nursery: trio.Nursery) -> Process:
        """Start a process of the service."""
        self._boots += 1
        boot = f"b{self._boots:03}"
        rng = self.generator(boot)
        redis = Link(self.redis, rng, self.settings.redis.timeout / 1_000)
        postgres = Link(self.postgres, rng, self.settings.postgres.timeout / 1_000)
        process = Process(
            boot,
            self.clock,
            redis,
            postgres,
            SimulatedWindow(boot=boot, link=redis, server=self.redis),
            SimulatedStore(self.plan.interval, boot=boot, link=postgres, server=self.postgres),
            SimulatedSpool(self.disk, lambda: redis.dead),
            self.step,
        )
        process.began, process.predecessors = true_time(), frozenset(self._ended)
        self.processes.append(process)
        self.note(f"{boot} starts")
        self.coverage["boots"] += 1
        nursery.start_soon(self._live, process, rng)
        return process

    async def _live(self, process: Process, rng: random.Random) -> None:
        try:
            with process.scope:
                await self._serve(process, rng)
        finally:
            self.processes.remove(process)
            self._account(process)
            process.ended.set()

    async def _serve(self, process: Process, rng: random.Random) -> None:
        async def started(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            await serve(
                self.settings,
                process.stopping,
                outside=self._outside(process, rng),
                task_status=task_status,
            )

        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(started)
                process.started, process.started_at = True, trio.current_time()
                self.watch.check_start(process)
        except* StoreTaken:
            process.outcome = "taken"
        except* TimeoutError as group:
            process.outcome = f"the stop was cut short: {group.exceptions[0]}"
        except* BarsLost as group:
            process.outcome = process.outcome or "bars lost"
            process.told_lost = _only(group)

    @asynccontextmanager
    async def _outside(self, process: Process, rng: random.Random) -> AsyncIterator[Outside]:
        decode, reader = line_decoder(self.settings), LineReader(process.clock, pace_of(self.settings))

        def source(name: str, reader: LineReader) -> SimulatedSource:
            exchange = self.exchanges[name]
            ways: dict[str, Any] = {
                "reachable": lambda: not process.dead,
                "frozen": lambda: process.redis.thawed,
                "closed": partial(self.watch.check_left, process),
                "failed": self.steps.fail,
                "reader": reader,
            }
            if exchange.numbering is None:
                return SimulatedSource(exchange, partial(self._received, process), decode=decode, **ways)
            return SimulatedVenue(
                exchange,
                partial(self._received_trades, process),
                symbols=self.plan.symbols,
                pauses=(self.settings.feeds.backoff_min / 1_000, self.settings.feeds.backoff_max / 1_000),
                decode=venue_decoder(exchange.numbering.kind, self.plan.symbols, checks_of(self.settings)),
                **ways,
            )

        async with process.store:
            yield Outside(
                boot=process.boot,
                clock=process.clock,
                entropy=rng,
                window=process.window,
                store=process.store,
                spool=process.spool,
                sources={
                    "live": [source(name, reader) for name in LIVE],
                    "test": [source(name, LineReader(process.clock)) for name in TEST],
                },
                front=quiet_front(process),
            )

    def _rules(self, process: Process) -> Rules:
        """What a process accepts just now."""
        return Rules(self.plan.symbols, process.clock.now(), self.plan.interval, self.plan.lateness)

    def _received(self, process: Process, exchange: str, line: bytes) -> None:
        """A process has received a line."""
        self._check_mode(process, exchange)
        found = judged(line, self._rules(process))
        if isinstance(found, GoodLine):
            self._give(process, exchange, found)
        elif found is not None:
            process.refused[exchange, found] += 1

    def _received_trades(
        self, process: Process, exchange: str, messages: Sequence[bytes], asked_at: int
    ) -> None:
        """A process has received messages together. It has asked for trades at `asked_at` (Unix ms)."""
        self._check_mode(process, exchange)
        rules, numbering = self._rules(process), self.exchanges[exchange].numbering
        assert numbering is not None
        if exchange not in process.sieves:
            known = (process.window.known or {}).get(exchange, {})
            process.sieves[exchange] = Sieve(numbering.kind, known)
        found = [trade for each in messages if (trade := judged_trade(each, rules)) is not None]
        malformed = len(messages) - len(found)
        trades = [
            Trade(each.line.symbol, each.line.timestamp, each.id, each.reason, place)
            for place, each in enumerate(found)
        ]
        accepted = process.sieves[exchange].accepted(
            trades, malformed=malformed, asked_at=asked_at, wall=rules.wall
        )
        for trade in accepted:
            self._give(process, exchange, found[trade.place].line, str(trade.id))
        refused = Counter(each.reason for each in found if each.reason is not None)
        refused["malformed"] += malformed
        refused["duplicate"] += len(found) - len(accepted) - sum(each.reason is not None for each in found)
        for reason, count in refused.items():
            if count:
                process.refused[exchange, reason] += count

    def _check_mode(self, process: Process, exchange: str) -> None:
        if exchange in process.left:
            raise Wrong(f"{process.boot} reads {exchange} after its mode was left")

    def _give(self, process: Process, exchange: str, good: GoodLine, number: str | None = None) -> None:
        """A process has received an update that it must accept."""
        self._orders += 1
        symbol, price, timestamp, told = good
        now = trio.current_time()
        process.given[exchange].append(
            Update(exchange, symbol, price, timestamp, process.boot, self._orders, now, told, number)
        )

    def updates_of(self, process: Process, *, entered: bool = True) -> list[Update]:
        """What a process has accepted, or (not `entered`) must accept of what its feeds were given."""
        found: list[Update] = []
        counters = process.counters() if entered else {}
        for exchange, updates in process.given.items():
            accepted = len(updates)
            if entered:
                accepted = counters[exchange].accepted if counters else 0
                if accepted > len(updates):
                    raise Wrong(f"{process.boot} {exchange}: {accepted} accepted of {len(updates)}")
            found += updates[:accepted]
        return found

    def updates(self) -> list[Update]:
        """All that was accepted, by whichever process."""
        return [*self.model.ended, *(each for process in self.processes for each in self.updates_of(process))]

    def unread(self) -> set[Interval]:
        """Intervals of which bars are in a spool that a process could not read: it cannot know of them."""
        return {
            (bar.pair, self.model.end_of(bar.start))
            for process in self.processes
            for number in process.spool.unread
            for bar in self.disk.files[number]
        }

    def _account(self, process: Process) -> None:
        """A process has ended: what it accepted, and what of that is lost."""
        updates = self.updates_of(process)
        self.model.ended += updates
        self.model.doubt(update for update in updates if update.at >= process.beside)
        self._check_told(process)
        if process.dead:
            process.outcome = "killed"
        elif not process.outcome:
            process.outcome = "stopped"
        self._ended[process.boot] = process.outcome
        self.note(f"{process.boot} {process.outcome}")
        self.coverage[f"outcome {process.outcome.split(':')[0]}"] += 1
        if process.outcome.startswith("the stop") and not process.was_frozen:
            raise Wrong(f"{process.boot}: {process.outcome}")
        self._check_ignored(process, updates)
        self._checks.check_trades(process)
        if process.outcome in ORDERLY and process.questions is not None:
            missed = len(self.updates_of(process, entered=False)) - len(self.updates_of(process))
            if missed:
                raise Wrong(f"{process.boot} stopped without {missed} updates that its feeds were given")
            for exchange, ledger in process.counters().items():
                refused = {
                    reason: count for (name, reason), count in process.refused.items() if name == exchange
                }
                if {reason: count for reason, count in ledger.rejected.items() if count} != refused:
                    raise Wrong(f"{process.boot} {exchange}: rejected {ledger.rejected}, right is {refused}")
            dropped = sum(ledger.dropped.get(SHUTDOWN, 0) for ledger in process.counters().values())
            # Two may serve if neither store could tell; then Redis takes what one of them has.
            shut_out = process.beside < math.inf and not process.window.histories_read
            if dropped and not shut_out and self.redis_well_since < process.stopped_at - WELL_SECONDS:
                raise Wrong(f"{process.boot} dropped {dropped} updates at its stop though Redis answered")
        pending = sum(ledger.pending for ledger in process.counters().values())
        if pending and not process.dead:
            raise Wrong(f"{process.boot} {process.outcome} with {pending} updates pending")
        self.watch.check_spooled(process)
        self.watch.check_taken(process)
        self.count_losses(process)

    def _check_ignored(self, process: Process, updates: Sequence[Update]) -> None:
        """Volumes that do not count are counted, by exchange; what tells none is not."""
        if process.questions is None:
            return
        counted = process.questions.measuring.measurements().volumes_ignored
        right = Counter(update.exchange for update in updates if update.told.ignored)
        self.coverage["volumes told"] += sum(update.told.volume is not None for update in updates)
        self.coverage["volumes ignored"] += right.total()
        if {name: count for name, count in counted.items() if count} != right:
            raise Wrong(f"{process.boot}: volumes ignored {counted}, right is {right}")

    def _check_told(self, process: Process) -> None:
        """What was not spooled is told, in words and by the exit code."""
        told = process.told_lost
        if process.dead:
            return
        failed = told is not None and told.failure is not None
        if failed != process.spool.failed:
            raise Wrong(f"{process.boot}: the spool failed: {process.spool.failed}, told: {told}")
        if told is not None and set(problems_of(told, ("", "")).values()) != {FAILED}:
            raise Wrong(f"{process.boot}: bars lost, and the exit code is another: {told}")

    def count_losses(self, process: Process | None) -> None:
        """Find out what ended processes accepted and no store has."""
        bars: dict[Any, int] = {}
        for pair, fields in self.redis.shelf.bars.items():
            for (second, boot), bar in fields.items():
                bars[pair, second, boot] = bar.count
        for each in self.disk.bars():
            if not each.whole:
                key = each.pair, each.start, each.boot
                bars[key] = max(bars.get(key, 0), each.bar.count)
        rows = {
            ((exchange, symbol), end): row.bar.count
            for (exchange, symbol, end), row in self.postgres.rows.items()
        }
        retention = self.plan.retention
        kept_from = -math.inf if retention is None else true_time() - retention
        # What is past its retention was deleted, and is not lost.
        lost = [each for each in self.model.lost(bars, rows) if self.model.end_of(each.timestamp) > kept_from]
        if not lost:
            return
        self.note(f"{len(lost)} updates are in no store")
        self.coverage["updates lost"] += len(lost)
        ended = process.boot if process is not None else None
        earlier = [update for update in lost if update.boot != ended]
        gone = [update for update in earlier if self._ended[update.boot] in {"stopped", "cancelled"}]
        if gone and not (self.redis_forgot_at > -math.inf or self.plan.kinds & FORGETFUL):
            raise Wrong(f"{gone[0].boot} had ended in order, and now {len(gone)} updates are lost: {gone[0]}")
        if process is not None:
            # What earlier boots have left may be in the memory of another that still runs.
            elsewhere = any(
                other.window.histories_read
                for other in self.processes
                if other is not process and not other.dead
            )
            lost = [each for each in lost if each.boot == ended] if elsewhere else lost
            if lost:
                self._judge_end(process, lost)

    def _judge_end(self, process: Process, lost: list[Update]) -> None:
        """A process has ended, and these updates are in no store: whether that may be."""
        # One that has lost its place may write nothing again, also if Redis loses something just then.
        # One that a bug ends has no time to find that out.
        # None can find out what Redis loses right after its last write.
        robbed = (
            process.robbed
            or 0 <= self.redis_forgot_at - self.redis.acted.get(process.boot, math.inf) < AFTER_THE_LAST
            or (
                process.outcome in {"taken", "cancelled"}
                and trio.current_time() - self.redis_forgot_at < WHOLE_SECONDS
            )
        )
        if not process.dead and process.outcome in KEEPS_ALL and not robbed and not self._both_lost(process):
            untold = [each for each in lost if not _is_told(process.told_lost, each, self.plan.interval)]
            if untold:
                what = f"{len(untold)} updates are in no store, and this is not told"
                raise Wrong(f"{process.boot} {process.outcome}, {what}: {untold[:3]}")
        now = min(process.killed_at, trio.current_time())
        well = not self._troubles and now - self._trouble_ended > WHOLE_SECONDS
        age = now - min(update.at for update in lost)
        if process.dead and well and age > self.plan.flush_interval / 1_000 + LEEWAY:
            raise Wrong(
                f"{process.boot} was killed while Redis answered, and what was received {age:.3f} s before is"
                f" lost: {len(lost)} updates, {lost[0]}"
            )

    def _both_lost(self, process: Process) -> bool:
        """Whether PostgreSQL has lost rows, and Redis was in trouble too when the process ended.

        It has not spooled the bars of rows that were final, and could not compare these rows any more.
        """
        older = "postgres older" in self.plan.kinds
        ended = min(process.stopped_at, trio.current_time())
        return older and max(self.redis_well_since, self.redis_forgot_at) > ended - WHOLE_SECONDS

    @property
    def serving(self) -> Process | None:
        """The oldest process that has begun to serve."""
        return next((process for process in self.processes if process.started and process.questions), None)


def _only(group: BaseExceptionGroup[BarsLost]) -> BarsLost:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, BarsLost)
    return error


def _is_told(told: BarsLost | None, update: Update, interval: int) -> bool:
    """Whether an update is among those that a stop has said to have lost."""
    if told is None or update.exchange not in told.exchanges:
        return False
    return told.first <= update.timestamp < told.last + interval
