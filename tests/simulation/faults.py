"""What goes wrong in a history, and what is done in it: the faults of a plan, at their times."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from marketflow.app.answers import NothingCanAnswer
from tests.simulation.plan import LIVE, TEST, Fault
from tests.simulation.process import Process, Wrong
from tests.simulation.stores import Way

if TYPE_CHECKING:
    from tests.simulation.world import World

STOP_SECONDS: Final = 10.5
"""A stop takes no longer than `shutdown_timeout`, and a little for what follows it."""
SECOND_SECONDS: Final = 8.0
"""A second service runs so much longer than the fault lasts, or twice as much, or not."""
OLDER: Final = 4
"""A store that comes back older has the state of one of so many last snapshots."""
REDIS_WAYS: Final[dict[str, Way]] = {
    "refuses": "refused",
    "hangs": "hanging",
    "loses replies": "no replies",
    "applies half": "half",
}
POSTGRES_WAYS: Final[dict[str, Way]] = {
    "refuses": "refused",
    "hangs": "hanging",
    "loses replies": "no replies",
}


class Faults:
    """Inflicts faults on a world."""

    def __init__(self, world: World, living: trio.Nursery) -> None:
        """`living`: in which processes run."""
        self._world = world
        self._living = living
        self._kinds = {
            "redis": self._redis,
            "postgres": self._postgres,
            "both": self._both_away,
            "exchange": self._exchange,
            "clock": self._clock,
            "mode": self._switch,
            "killed": self._kill,
            "stopped": self._stop,
            "frozen": self._freeze,
            "cut": self._cut_off,
            "second": self._second,
        }

    async def inflict(self, fault: Fault) -> None:
        """Wait for the fault's time, and have it happen from its beginning to its end."""
        await trio.sleep_until(fault.at)
        self._world.note(str(fault))
        self._world.coverage[fault.kind] += 1
        with self._world.disturbed(fault.kind):
            await self._kinds[fault.kind.partition(" ")[0]](fault, random.Random(f"{fault.detail}"))

    # ---- stores ----

    async def _redis(self, fault: Fault, rng: random.Random) -> None:
        redis, what = self._world.redis, fault.kind.partition(" ")[2]
        with self._world.redis_in_trouble():
            if what in REDIS_WAYS:
                redis.turn(REDIS_WAYS[what])
                await trio.sleep(fault.lasts)
                redis.turn("up")
            elif what == "slow":
                redis.latency *= 300
                await trio.sleep(fault.lasts)
                redis.latency /= 300
            elif what == "restarted empty":
                redis.turn("refused")
                await trio.sleep(fault.lasts)
                self._redis_loses(redis.shelf.empty)
                redis.turn("up")
            elif what == "emptied":
                self._redis_loses(redis.shelf.empty)
            elif what == "older" and self._world.snapshots:
                self._redis_loses(rng.choice(self._world.snapshots[-OLDER:])[0])

    def _redis_loses(self, lose: Callable[[], None]) -> None:
        """Redis loses something. A process that knows what it had writes it again; without one it is lost."""
        lose()
        for process in self._world.processes:
            process.robbed = process.robbed or process.window.released
        self._world.redis_forgot = True
        if all(process.robbed or not process.window.histories_read for process in self._world.processes):
            self._world.count_losses(None)

    async def _postgres(self, fault: Fault, rng: random.Random) -> None:
        postgres, what = self._world.postgres, fault.kind.partition(" ")[2]
        if what in POSTGRES_WAYS:
            postgres.turn(POSTGRES_WAYS[what])
            await trio.sleep(fault.lasts)
            postgres.turn("up")
        elif what == "refuses rows":
            postgres.refuses_rows = True
            await trio.sleep(fault.lasts)
            postgres.refuses_rows = False
        elif what == "breaks connections":
            postgres.break_connections()
        elif what == "older" and self._world.snapshots:
            rng.choice(self._world.snapshots[-OLDER:])[1]()
            self._world.model.rows_went_back()

    async def _both_away(self, fault: Fault, _: random.Random) -> None:
        with self._world.redis_in_trouble():
            for server in (self._world.redis, self._world.postgres):
                server.turn("refused")
            await trio.sleep(fault.lasts)
            for server in (self._world.redis, self._world.postgres):
                server.turn("up")

    # ---- exchanges and the clock ----

    async def _exchange(self, fault: Fault, rng: random.Random) -> None:
        exchange = self._world.exchanges[rng.choice(sorted(self._world.exchanges))]
        behaviour, what = exchange.behaviour, fault.kind.partition(" ")[2]
        match what:
            case "down":
                behaviour.down = True
                exchange.drop(broken=rng.random() < 0.5)
                await trio.sleep(fault.lasts)
                behaviour.down = False
            case "breaks" | "closes":
                exchange.drop(broken=what == "breaks")
            case "mute" | "mad":
                setattr(behaviour, what, True)
                await trio.sleep(fault.lasts)
                setattr(behaviour, what, False)
            case "ahead":
                behaviour.ahead = rng.choice((1_000, 4_500, 6_000))
                await trio.sleep(fault.lasts)
                behaviour.ahead = 0
            case "bursts":
                behaviour.burst = 40
                await trio.sleep(fault.lasts)
                behaviour.burst = 1

    async def _clock(self, fault: Fault, rng: random.Random) -> None:
        step = rng.choice((2_000, 30_000, 3 * 86_400_000, 3 * 86_400_000))
        self._world.clock.offset = step if fault.kind == "clock ahead" else -step
        await trio.sleep(fault.lasts)
        self._world.clock.offset = 0

    # ---- processes ----

    async def _switch(self, _fault: Fault, _: random.Random) -> None:
        """Switch the mode: nothing of the old one is lost, and nothing of it comes afterwards."""
        process = self._world.serving
        if process is None or process.questions is None:
            return
        modes = process.questions.modes
        wanted = "test" if modes.mode == "live" else "live"
        process.left = frozenset()
        process.switching += 1
        try:
            await modes.switch(wanted)
        except NothingCanAnswer:
            return
        finally:
            process.switching -= 1
        if process.ended.is_set() or process.dead:
            return
        old = LIVE if wanted == "test" else TEST
        given = Counter(update.exchange for update in self._world.updates_of(process, entered=False))
        taken = Counter(update.exchange for update in self._world.updates_of(process))
        for name in old:
            if given[name] != taken[name]:
                raise Wrong(f"{process.boot} left {name}: {taken[name]} of {given[name]} accepted")
        if modes.mode == wanted:
            process.left = frozenset(old)

    async def _kill(self, _: Fault, rng: random.Random) -> None:
        """Kill the oldest process between two steps of any tasks."""
        process = self._world.serving
        if process is None:
            return
        self._world.steps.at(self._world.steps.count + rng.randint(1, 100), process.kill)
        await process.ended.wait()

    async def _stop(self, _fault: Fault, _: random.Random) -> None:
        process = self._world.serving
        if process is not None:
            await stop(process)

    async def _freeze(self, fault: Fault, _: random.Random) -> None:
        process = self._world.serving
        if process is None or process.redis.thawed is not None:
            return
        with self._world.redis_in_trouble():
            process.freeze()
            await trio.sleep(fault.lasts)
            process.thaw()

    async def _cut_off(self, fault: Fault, rng: random.Random) -> None:
        """The oldest process alone cannot reach one of the stores, or both."""
        process = self._world.serving
        if process is None:
            return
        links = rng.choice(([process.redis], [process.postgres], [process.redis, process.postgres]))
        with self._world.redis_in_trouble():
            for link in links:
                link.cut = True
            if process.postgres in links and rng.random() < 0.5:
                process.store.die()  # The server has noticed.
            await trio.sleep(fault.lasts)
            rng.shuffle(links)
            for number, link in enumerate(links):
                if number:  # One comes back first, often a while before the other.
                    await trio.sleep(rng.choice((0.0, rng.uniform(0.0, 12.0))))
                link.cut = False
                process.back_at = trio.current_time()

    async def _second(self, fault: Fault, rng: random.Random) -> None:
        """Another service on the same stores, while the first is well, frozen, killed or cut off."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._live_beside, fault)
            match fault.kind.rpartition(" ")[2]:
                case "frozen":
                    nursery.start_soon(self._freeze, fault, rng)
                case "killed":
                    nursery.start_soon(self._kill, fault, rng)
                case "off":
                    nursery.start_soon(self._cut_off, fault, rng)

    async def _live_beside(self, fault: Fault) -> None:
        if not self._world.processes:
            return
        second = self._world.start(self._living)
        with trio.move_on_after(fault.lasts + fault.detail % 3 * SECOND_SECONDS):
            await second.ended.wait()
        if not second.ended.is_set() and not second.stopping.is_set():
            second.stop()
            await second.ended.wait()


async def stop(process: Process) -> None:
    """Stop a process in order.

    Raises:
        Wrong: it takes too long.
    """
    process.stop()
    with trio.move_on_after(STOP_SECONDS):
        await process.ended.wait()
    if not process.ended.is_set():
        raise Wrong(f"{process.boot} has not stopped {STOP_SECONDS} s after it was asked to")
