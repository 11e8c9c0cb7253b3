"""What must hold in a history: at each step, now and then, and at its end."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import trio

from marketflow.app.answers import NoData, NothingCanAnswer
from marketflow.app.interface import PriceQuestions
from marketflow.app.ports import Aggregate
from marketflow.domain.periods import Range
from tests.simulation.faults import stop
from tests.simulation.model import Interval, Pair, Update, summary
from tests.simulation.plan import LIVE, TEST
from tests.simulation.process import Process, Wrong, true_time
from tests.simulation.stores import TURNS_SECONDS
from tests.simulation.trades import Totals
from tests.simulation.volumes import (
    found_answer,
    found_in,
    right_vwap,
    same_volumes,
    volumes_of,
    within_volumes,
)

if TYPE_CHECKING:
    from tests.simulation.world import World

WHOLE_SECONDS: Final = 10.0
"""After the last fault everything is whole again within this."""
START_SECONDS: Final = 8.0
"""A start may have to be waited for before that: the pause after a kill, and the hold of the killed one."""
ANSWER_SECONDS: Final = 15.0
"""A question is answered, one way or the other, within this."""
MADE_SECONDS: Final = 8.0
"""A row is written within this after it was made, also where PostgreSQL takes its time."""
LAST_SECONDS: Final = 1.5
"""So long lines come in once more before the last stop."""
REFUSED_SECONDS: Final = 65.0
"""Rows that were refused are tried again after a minute."""
BOTH_SECONDS: Final = 12.0
"""Of two services that can both reach a store one ends within this. The second writes nothing meanwhile."""


KINDS: Final = ("summary", "highest", "lowest", "average", "latest")
"""Of questions."""


class Checks:
    """Compares a world with its model."""

    def __init__(self, world: World) -> None:
        self._world = world

    def check_ledgers(self) -> None:
        """After each step of any task: every ledger adds up.

        Raises:
            Wrong
        """
        serving = [process for process in self._world.processes if process.started]
        if len(serving) > 1:
            for process in serving:
                process.beside = min(process.beside, trio.current_time())
        for process in self._world.processes:
            for exchange, ledger in process.counters().items():
                kept = ledger.cached + ledger.expired + sum(ledger.dropped.values()) + ledger.pending
                if (
                    ledger.received != ledger.accepted + sum(ledger.rejected.values())
                    or ledger.accepted != kept
                ):
                    raise Wrong(f"{process.boot} {exchange}: the ledger does not add up: {ledger}")
                batch = self._world.exchanges[exchange].most_received
                if not 0 <= ledger.pending <= max(self._world.limits[exchange], batch):
                    raise Wrong(f"{process.boot} {exchange}: {ledger.pending} pending")
                if ledger.cached > len(process.window.held[exchange]):
                    raise Wrong(f"{process.boot} {exchange}: more is cached than Redis has taken: {ledger}")

    async def watch_writers(self) -> None:
        """Two services on the same stores find each other, and one ends, where either store can tell.

        Each store has to tell it by itself: none counts the time in which it was away.
        """
        together: dict[tuple[str, str, str], float] = {}
        while True:
            await trio.sleep(0.25)
            now = trio.current_time()
            serving = [
                process
                for process in self._world.processes
                if process.started and not process.stopping.is_set() and process.redis.thawed is None
            ]
            found = [
                (one.boot, other.boot, store)
                for one, other in itertools.combinations(serving, 2)
                for store, ways in (
                    ("Redis", (one.redis.way, other.redis.way)),
                    ("PostgreSQL", (one.postgres.way, other.postgres.way)),
                )
                if ways == ("up", "up")
            ]
            together = {key: together.get(key, now) for key in found}
            for (first, second, store), since in together.items():
                if now - since > BOTH_SECONDS:
                    raise Wrong(
                        f"{first} and {second} have served for {BOTH_SECONDS:.0f} s on the same {store}"
                    )

    def two_writers(self, one: str, other: str) -> None:
        """Two processes write in turns. One that was frozen or cut off may do so for a moment.

        It goes on if the other has ended meanwhile: else no service would be left.
        """
        if all(each.boot != other for each in self._world.processes):
            return
        back = max((each.back_at for each in self._world.processes if each.boot == one), default=math.inf)
        if trio.current_time() - back < TURNS_SECONDS:
            return
        raise Wrong(f"{one} and {other} write in turns to the same store")

    def robbed(self, one: str, other: str) -> None:
        """A process takes the lease that another one uses."""
        raise Wrong(f"{one} takes the lease of {other}, which has just written")

    def check_members(self) -> None:
        """What is in the window was accepted, and is there as often.

        Raises:
            Wrong
        """
        if extra := self._held() - Counter(map(_all_of, self._world.updates())):
            raise Wrong(f"in the window, but never accepted, or twice: {list(extra.items())[:3]}")

    def _held(self) -> Counter[Any]:
        """All of what the window holds."""
        held: Counter[Any] = Counter()
        for (exchange, symbol), members in self._world.redis.shelf.members.items():
            for each in members.values():
                held[exchange, symbol, each.timestamp, each.price, each.volume, each.side, each.id] += 1
        return held

    def check_trades(self, process: Process) -> None:
        """Of exchanges with ids: duplicates, and ids that are missing, are counted as the model does.

        Raises:
            Wrong
        """
        if process.questions is None or not process.sieves:
            return
        report = process.questions.measuring.measurements().health
        for name, sieve in process.sieves.items():
            found, ledger = report.exchanges[name], report.exchanges[name].updates
            counted = Totals(ledger.received, ledger.rejected.get("duplicate", 0), found.gaps)
            right = list(sieve.totals(ledger.received))
            if counted not in right:
                raise Wrong(f"{process.boot} {name}: {counted}, right is {right}")

    def check_write(self, boot: str, row: Aggregate, sent: float) -> None:
        """A row that is written holds all that had come in when it was made: an incomplete one is a lie.

        That includes all of processes that had ended before this one began. And it is not written before its
        interval is closed. A write that was `sent` (seconds of Trio's clock) long ago may have been held up.

        Raises:
            Wrong
        """
        pair = row.exchange, row.symbol
        model = self._world.model
        stepped = any(kind.startswith("clock") for kind in self._world.plan.kinds)
        if not stepped and row.end + self._world.plan.grace > true_time():
            raise Wrong(f"a row was written before its interval was closed: {row}")
        if (
            (pair, row.end) in model.tainted
            or row.end <= model.told_by_rows
            or any(each.beside < math.inf for each in self._world.processes)
        ):
            return
        if (pair, row.end) in self._world.unread():
            return
        before = min(trio.current_time() - MADE_SECONDS, sent)
        earlier = next((each.predecessors for each in self._world.processes if each.boot == boot), ())
        came = [
            each
            for each in self._world.updates()
            if (each.exchange, each.symbol) == pair
            and self._world.model.end_of(each.timestamp) == row.end
            and (each.at < before or each.boot in earlier)
        ]
        if row.bar.count < len(came):
            raise Wrong(f"a row of {row.bar.count} updates was written, {len(came)} had come in: {row}")
        if not within_volumes(volumes_of(came), found_in(row.bar.traded)):
            raise Wrong(f"a row was written without all volumes that had come in: {row}: {volumes_of(came)}")

    async def ask_now_and_then(self) -> None:
        rng = self._world.generator("questions")
        until = self._world.plan.seconds
        while trio.current_time() < until:
            await trio.sleep(rng.uniform(0.2, 2.0))
            await self._ask(rng)

    async def _ask(self, rng: random.Random) -> None:
        """One question, compared with the model."""
        process = self._world.serving
        if process is None or process.questions is None or process.stopping.is_set():
            return
        self.check_trades(process)
        modes = process.questions.modes
        mode, symbol = modes.mode, rng.choice(list(self._world.plan.symbols))
        of_mode = LIVE if mode == "live" else TEST
        exchange = rng.choice([None, *of_mode])
        meant = (exchange,) if exchange else of_mode
        kind = rng.choice(KINDS if self._world.plan.volumes is None else (*KINDS, "candles"))
        before = self._about(symbol, meant)
        newest = self._newest_known(process, symbol, meant)
        offset = self._world.clock.offset
        answer = await self._answer(process.questions.prices, kind, symbol, exchange, rng)
        if answer is None or modes.mode != mode or process.ended.is_set() or process.beside < math.inf:
            return
        after = self._about(symbol, meant)
        behind = min(0, offset, self._world.clock.offset)
        seen = [each for each in before if not self._unseen(process, each, behind)]
        if kind == "candles":
            spans = list(answer.candles)
        else:
            self._world.coverage[f"answer {answer.source}"] += 1
            spans = [answer] if kind != "latest" else []
        if kind == "latest":
            self._check_latest(answer, newest, before, after, process)
        for span in spans:
            if not self._world.model.taints(meant, symbol, span.start, span.end, self._world.unread()):
                self._check_span(kind, span, seen, after)

    @staticmethod
    def _unseen(process: Process, update: Update, behind: int) -> bool:
        """Whether an answer may lack an update: an earlier boot accepted it ahead of this one's clock.

        Until Redis has answered, a boot takes the time from its beginning on for known. It counts that time
        by its clock, which may be `behind` (ms, not positive) as long as nobody sets it right.
        """
        earlier = update.boot in process.predecessors
        return earlier and not process.window.histories_read and update.timestamp >= process.began + behind

    def _about(self, symbol: str, exchanges: Sequence[str]) -> list[Update]:
        """What was accepted up to now of a symbol."""
        return [
            each for each in self._world.updates() if each.symbol == symbol and each.exchange in exchanges
        ]

    async def _answer(
        self, prices: PriceQuestions, kind: str, symbol: str, exchange: str | None, rng: random.Random
    ) -> Any:
        """None if there is no answer, for a reason that is allowed."""
        coverage = self._world.coverage
        coverage["questions"] += 1
        asked = None if exchange is None else (exchange,)
        try:
            with trio.fail_after(ANSWER_SECONDS):
                match kind:
                    case "latest":
                        return await prices.latest(symbol, asked)
                    case "summary":
                        period = rng.choice(("1s", "3s", "7s", "1m", "5m"))
                        return await prices.summary(symbol, asked, Range(period))
                    case "candles":
                        interval = rng.choice(("1s", "5s", "1m"))
                        return await prices.candles(symbol, asked, interval, None, None, 100)
                    case "highest" | "lowest" | "average":
                        period = rng.choice(("2s", "5s", "1m"))
                        return await prices.statistic(kind, symbol, asked, Range(period))
        except NoData:
            coverage["no data"] += 1
        except NothingCanAnswer:
            coverage["nothing can answer"] += 1
        except trio.TooSlowError:
            raise Wrong(f"no answer within {ANSWER_SECONDS} s: {kind} {symbol}") from None
        return None

    def _newest_known(self, process: Process, symbol: str, exchanges: Sequence[str]) -> int:
        """The greatest timestamp (ms) that it must know of; 0 if there is none.

        As long as it could not read what Redis has of earlier boots: of its own updates, and of rows.
        """
        if process.window.histories_read:
            updates, rows = self._about(symbol, exchanges), []
        else:
            updates = [
                each
                for each in self._world.updates_of(process)
                if each.symbol == symbol and each.exchange in exchanges
            ]
            rows = [
                row.bar.close_time
                for (exchange, name, _), row in self._world.postgres.rows.items()
                if name == symbol and exchange in exchanges
            ]
        unknown, interval_of = self._unknown(), self._world.model.interval_of
        return max([0, *rows, *(each.timestamp for each in updates if interval_of(each) not in unknown)])

    def _check_latest(
        self, answer: Any, newest: int, before: list[Update], after: list[Update], process: Process
    ) -> None:
        known = {(update.timestamp, update.price, update.told.volume) for update in after}
        if answer.source == "postgres":  # rows do not have it
            known |= {(timestamp, price, None) for timestamp, price, _ in known}
        if answer.timestamp < newest or (answer.timestamp, answer.price, answer.volume) not in known:
            raise Wrong(f"latest: {answer}, the newest is of {newest}")
        equal = [each for each in before if each.timestamp == answer.timestamp]
        unknown, interval_of = self._unknown(), self._world.model.interval_of
        if not process.window.histories_read or any(interval_of(each) in unknown for each in equal):
            return
        # Of equal timestamps the later received is the later, of each exchange. Others came in meanwhile.
        last = {each.exchange: each.price for each in sorted(equal, key=lambda each: each.order)}
        earlier = set(before)
        meanwhile = (
            {each.price for each in after if each.timestamp == answer.timestamp}
            if not last
            else {each.price for each in after if each.timestamp == answer.timestamp and each not in earlier}
        )
        if answer.price not in meanwhile.union(last.values()):
            raise Wrong(f"latest: {answer}, of that time the last received are {last}")

    def _unknown(self) -> set[Interval]:
        """Intervals of which something was lost, or cannot be known."""
        return self._world.unread() | self._world.model.tainted.keys()

    def _check_span(self, kind: str, answer: Any, before: list[Update], after: list[Update]) -> None:
        within = [each for each in after if answer.start <= each.timestamp < answer.end]
        least = sum(answer.start <= each.timestamp < answer.end for each in before)
        if not least <= answer.updates <= len(within):
            raise Wrong(f"{kind}: {answer}: {answer.updates} updates, there are {least} to {len(within)}")
        if answer.updates != len(within) or not within:
            return
        right = summary(within)
        if kind == "summary":
            prices = answer.min_price, answer.max_price, answer.average_price
            expected = right.min, right.max, right.average
        elif kind == "candles":
            prices = answer.low, answer.high, answer.average
            expected = right.min, right.max, right.average
        else:
            prices = (answer.price,)
            expected = ({"highest": right.max, "lowest": right.min, "average": right.average}[kind],)
        for price, wanted in zip(prices, expected, strict=True):
            if abs(price - wanted) > 1e-9 * abs(wanted):
                raise Wrong(f"{kind}: {answer}, right is {right}")
        if kind in {"summary", "candles"}:
            self._world.coverage["answers with volumes"] += right.volumes.updates > 0
            whole = same_volumes(found_answer(answer), right.volumes)
            if not whole or not right_vwap(answer, right.min, right.max):
                raise Wrong(f"{kind}: volumes of {answer}, right is {right}")

    # ---- the end ----

    async def calm(self) -> None:
        """No fault any more: everything becomes whole in time, rows and window are right, a stop is clean."""
        self._world.note("calm")
        for process in self._world.processes:
            process.thaw()
        began = trio.current_time()
        wrong = ["nothing looked at yet"]
        while wrong:
            if trio.current_time() - began > WHOLE_SECONDS + START_SECONDS:
                raise Wrong(f"not whole {WHOLE_SECONDS} s after the last fault: {wrong[:3]}")
            await trio.sleep(0.25)
            if await self._restarted_to_read():
                began = trio.current_time()
            wrong = self._not_whole()
        for exchange in self._world.exchanges.values():
            exchange.behaviour.mute = True
        process = self._world.serving
        assert process is not None
        assert process.questions is not None
        measurements = process.questions.measuring.measurements
        extra = REFUSED_SECONDS if measurements().aggregates_refused else 0.0
        await trio.sleep((self._world.plan.interval + self._world.plan.grace) / 1_000 + 8.0 + extra)
        self._check_window(process)
        if (pending := measurements().aggregates_pending) != 0:
            raise Wrong(f"{pending} rows are still to be written")
        until = self._world.clock.now() - self._world.plan.grace
        # It is stopped while lines come in.
        for exchange in self._world.exchanges.values():
            exchange.behaviour.mute = False
        await trio.sleep(LAST_SECONDS)
        await stop(process)
        if left := self._world.disk.readable():
            raise Wrong(f"{len(left)} spools are left though both stores are up")
        self._check_rows(until)

    async def _restarted_to_read(self) -> bool:
        """A spool that could not be read is brought in by the next start; returns whether one was needed."""
        process = self._world.serving
        if process is None or not process.spool.unread or len(self._world.processes) > 1:
            return False
        await stop(process)
        self._world.coverage["restarted to read a spool"] += 1
        return True

    def _not_whole(self) -> list[str]:
        process = self._world.serving
        if process is None or process.questions is None or len(self._world.processes) != 1:
            return ["no process serves"]
        measured = process.questions.measuring.measurements()
        report = measured.health
        stores = {"redis": report.redis, "postgres": report.postgres}
        wrong = [f"{name} is {store.status}" for name, store in stores.items() if store.status != "up"]
        wrong += [
            f"{name} is {exchange.status}"
            for name, exchange in report.exchanges.items()
            if exchange.status not in {"connected", "off"}
        ]
        # Rows that were refused keep the status from being "ok" until they are tried again, and nothing else.
        if not wrong and report.status != "ok" and not measured.aggregates_refused:
            wrong.append(f"status {report.status}: {report}")
        return wrong

    def _check_window(self, process: Process) -> None:
        """What the last process accepted is in Redis, each update once, and its bars count all of them."""
        if process.beside < math.inf:
            return
        mine = self._world.updates_of(process)
        since = self._world.clock.now() - self._world.plan.window_length
        dropped = sum(sum(ledger.dropped.values()) for ledger in process.counters().values())
        self.check_members()
        replayed = self._world.plan.replay_memory > 1_000_000
        wanted = Counter(_all_of(each) for each in mine if each.timestamp >= since)
        missing = wanted - self._held()
        if missing and not dropped and replayed:
            raise Wrong(f"not in the window: {list(missing.items())[:3]} of {process.boot}")
        self._check_bars(process, mine)

    def _check_bars(self, process: Process, mine: Sequence[Update]) -> None:
        """The bars in Redis of what the last process accepted."""
        seconds: defaultdict[tuple[Pair, int], list[Update]] = defaultdict(list)
        for each in mine:
            seconds[(each.exchange, each.symbol), each.timestamp // 1_000 * 1_000].append(each)
        # Where Redis has lost bars of an earlier boot, rows tell what was before: all bars of that time go.
        told_by_rows = max((end for _, end in self._world.model.tainted), default=0)
        for (pair, second), updates in seconds.items():
            if second < told_by_rows:
                continue
            bar = self._world.redis.shelf.bars.get(pair, {}).get((second, process.boot))
            if bar is None or bar.count != len(updates):
                raise Wrong(f"bar of {pair} {second}: {bar}, {len(updates)} updates were accepted")
            if not same_volumes(found_in(bar.traded), volumes_of(updates)):
                raise Wrong(f"bar of {pair} {second}: {bar}, right is {volumes_of(updates)}")
            last = max(updates, key=lambda each: (each.timestamp, each.order))
            if bar.close_volume != last.told.volume:
                raise Wrong(f"bar of {pair} {second}: {bar}, the last update is {last}")

    def _check_rows(self, until: int) -> None:
        rows = {
            ((exchange, symbol), end): row.bar
            for (exchange, symbol, end), row in self._world.postgres.rows.items()
        }
        retention, interval = self._world.plan.retention, self._world.plan.interval
        since = 0 if retention is None else true_time() - retention + 2 * interval
        wrong = self._world.model.wrong_rows(rows, self._world.updates(), until, since)
        if wrong:
            raise Wrong(f"{len(wrong)} rows are not right: {wrong[:3]}")
        self._world.coverage["rows"] += len(rows)


def _all_of(update: Update) -> tuple[Any, ...]:
    """What the window holds of an update."""
    volume, side, _ = update.told
    return update.exchange, update.symbol, update.timestamp, update.price, volume, side, update.id
