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
from tests.simulation.stores import OwnWay, Way

if TYPE_CHECKING:
    from tests.simulation.world import World

STOP_SECONDS: Final = 10.5
"""A stop takes no longer than `shutdown_timeout`, and a little for what follows it."""
SECOND_SECONDS: Final = 8.0
"""A second service runs so much longer than the fault lasts, or twice as much, or not."""
CANCEL_SECONDS: Final = 5.0
"""A process that was cancelled ends within this: only a write on its way and the spool are shielded."""
STEPS: Final = 100
"""What happens at a step does so before one of so many."""
SAVE_STEPS: Final = 6
"""About the steps of a save."""
SEND_SECONDS: Final = 3.0
"""So long a stop waits for an exchange that sends."""
PAUSE_SECONDS: Final = 0.01
"""About the pause of a feed after it has received little."""
NEXT_SECONDS: Final = 10.0
"""A process that has ended is started again within this."""
POLL_SECONDS: Final = 0.05
DAYS: Final = 3 * 86_400_000
"""A great step of the clock (ms)."""
OWN_WAYS: Final[tuple[OwnWay, ...]] = ("refused", "requests lost", "answers lost")
NETWORK_WAYS: Final[dict[str, OwnWay]] = {
    "down": "refused",
    "loses requests": "requests lost",
    "loses answers": "answers lost",
}
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
            "signalled": self._signal_twice,
            "cancelled": self._cancel,
            "frozen": self._freeze,
            "restarted": self._restart_without_redis,
            "network": self._network,
            "spool": self._spool,
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
            elif what == "older after a kill":
                await self._older_after_a_kill(fault, rng)
            elif what == "late write":
                redis.write_late()

    async def _older_after_a_kill(self, fault: Fault, rng: random.Random) -> None:
        """The next process has just taken the lease, and Redis shows that of the killed one again."""
        await self._kill(fault, rng)
        restore = self._world.redis.snapshot()
        if await self._next_serves():
            await trio.sleep(rng.uniform(0.1, 1.0))
            self._redis_loses(restore)

    def _redis_loses(self, lose: Callable[[], None]) -> None:
        """Redis loses something. A process that knows what it had writes it again; without one it is lost."""
        lose()
        for process in self._world.processes:
            process.robbed = process.robbed or process.window.released
        self._world.redis_forgot_at = trio.current_time()
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
        step = rng.choice((2_000, 30_000, DAYS, DAYS))
        if fault.kind == "clock days ahead":
            step = DAYS
        self._world.clock.offset = -step if fault.kind == "clock behind" else step
        await trio.sleep(fault.lasts)
        self._world.clock.offset = 0

    # ---- processes ----

    async def _at_a_step(self, rng: random.Random, act: Callable[[], None], most: int = STEPS) -> None:
        """Act before one of the next `most` steps of any tasks; returns once that is done."""
        done = trio.Event()

        def now() -> None:
            act()
            done.set()

        self._world.steps.at(self._world.steps.count + rng.randint(1, most), now)
        await done.wait()

    async def _switch(self, _fault: Fault, rng: random.Random) -> None:
        """Switch the mode: nothing of the old one is lost, and nothing of it comes afterwards."""
        await self._at_a_step(rng, lambda: None)
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
        if process.ended.is_set() or process.dead or process.outcome:
            return
        old = LIVE if wanted == "test" else TEST
        given = Counter(update.exchange for update in self._world.updates_of(process, entered=False))
        taken = Counter(update.exchange for update in self._world.updates_of(process))
        for name in old:
            if given[name] != taken[name]:
                raise Wrong(f"{process.boot} left {name}: {taken[name]} of {given[name]} accepted")
        self._world.coverage[f"switched to {wanted}"] += 1
        if modes.mode == wanted:
            process.left = frozenset(old)

    async def _kill(self, _: Fault, rng: random.Random, victim: Process | None = None) -> None:
        """Kill a process, by default the oldest, between two steps of any tasks."""
        process = victim or self._world.serving
        if process is not None:
            await self._at_a_step(rng, process.kill)
            await process.ended.wait()

    async def _stop(self, fault: Fault, rng: random.Random) -> None:
        process = self._world.serving
        if process is None:
            return
        if fault.kind == "stopped after a send":
            await self._stop_after_a_send(process, rng)
        else:
            await self._at_a_step(rng, process.stop)
        await stop(process)

    async def _stop_after_a_send(self, process: Process, rng: random.Random) -> None:
        """An exchange sends twice, one right after the other, and then comes the stop.

        The feed has received the first lines and pauses, or is about to receive the second ones.
        """
        modes = process.questions.modes if process.questions is not None else None
        names = TEST if modes is not None and modes.mode == "test" else LIVE
        exchange = self._world.exchanges[rng.choice(names)]
        exchange.sent = trio.Event()
        with trio.move_on_after(SEND_SECONDS):
            await exchange.sent.wait()
            await trio.sleep(rng.uniform(0.0, PAUSE_SECONDS))
        exchange.send()
        await trio.lowlevel.checkpoint()
        process.stop()

    async def _restart_without_redis(self, fault: Fault, rng: random.Random) -> None:
        """Stop or kill a process. Redis has all of it, and goes away before the next one starts."""
        process = self._world.serving
        if process is None:
            return
        if rng.random() < 0.5:
            await self._at_a_step(rng, process.stop)
            await stop(process)
        else:
            await self._at_a_step(rng, process.kill)
            await process.ended.wait()
        with self._world.redis_in_trouble():
            self._world.redis.turn("refused")
            await trio.sleep(fault.lasts)
            self._world.redis.turn("up")

    async def _signal_twice(self, _fault: Fault, rng: random.Random) -> None:
        """A stop, and a second signal at one of its steps: the process leaves at once."""
        process = self._world.serving
        if process is not None:
            await self._at_a_step(rng, process.stop)
            await self._at_a_step(rng, process.kill, rng.choice((20, 100, 500)))
            await process.ended.wait()

    async def _cancel(self, _fault: Fault, rng: random.Random) -> None:
        """Cancel all tasks at their next checkpoint, as if one of them had failed; in a stop as well."""
        process = self._world.serving
        if process is None:
            return
        if rng.random() < 0.3:
            await self._at_a_step(rng, process.stop)
        await self._at_a_step(rng, process.cancel)
        # In a stop the spool has what is left of the stop's time.
        await ended_in_time(process, STOP_SECONDS if process.stopping.is_set() else CANCEL_SECONDS)

    async def _freeze(self, fault: Fault, _: random.Random, victim: Process | None = None) -> None:
        process = victim or self._world.serving
        if process is None or process.redis.thawed is not None or process.dead:
            return
        with self._world.redis_in_trouble():
            process.freeze()
            try:
                await trio.sleep(fault.lasts)
            finally:
                process.thaw()

    async def _network(self, fault: Fault, rng: random.Random, victim: Process | None = None) -> None:
        """The network fails between one process alone and one of the stores, or both."""
        process = victim or self._world.serving
        if process is None:
            return
        links = rng.choice(([process.redis], [process.postgres], [process.redis, process.postgres]))
        what = fault.kind.rpartition(" network ")[2].removeprefix("network ")
        if what == "blinks":
            await self._blink(process, rng)
            return
        with self._world.redis_in_trouble():
            for link in links:
                way: OwnWay = rng.choice(OWN_WAYS) if what == "fails" else NETWORK_WAYS[what]
                self._world.coverage[f"{'redis' if link is process.redis else 'postgres'}: {way}"] += 1
                link.turn(way)
            if process.postgres in links and rng.random() < 0.5:
                process.store.die()  # The server has noticed.
            await trio.sleep(fault.lasts)
            rng.shuffle(links)
            for number, link in enumerate(links):
                if number:  # One comes back first, often a while before the other.
                    await trio.sleep(rng.choice((0.0, rng.uniform(0.0, 12.0))))
                link.turn("up")
                process.back_at = trio.current_time()

    async def _blink(self, process: Process, rng: random.Random) -> None:
        """A process loses PostgreSQL, and then Redis for so short a time that it may still trust its lease.

        Another one, which waits, has PostgreSQL's lock meanwhile, and takes the lease.
        """
        with self._world.redis_in_trouble():
            process.postgres.turn("refused")
            process.store.die()
            await trio.sleep(rng.uniform(1.0, 2.0))
            process.redis.turn(rng.choice(("refused", "requests lost")))
            await trio.sleep(rng.uniform(1.8, 3.2))
            process.redis.turn("up")
            process.back_at = trio.current_time()
            await trio.sleep(rng.uniform(5.0, 9.0))
            process.postgres.turn("up")

    # ---- the spool ----

    async def _spool(self, fault: Fault, rng: random.Random) -> None:
        """Both stores are away at a stop, so that there is something to spool; and the disk may fail, too."""
        process, what, disk = self._world.serving, fault.kind.partition(" ")[2], self._world.disk
        if process is None:
            return
        with self._world.redis_in_trouble():
            for server in (self._world.redis, self._world.postgres):
                server.turn("refused")
            await trio.sleep(rng.uniform(0.2, 2.0))
            if what == "disk full":
                disk.turn("full")
            elif what == "disk hangs":
                disk.turn("hanging")
            await self._at_a_step(rng, process.stop)
            if what == "save killed":
                await self._kill_while_saving(process, rng)
            else:
                await stop(process)
            if what == "used, then killed":
                await self._kill_the_next(fault, rng)
            elif what == "unreadable":
                disk.turn("unreadable")
            elif what == "damaged":
                self._damage(rng)
            await trio.sleep(fault.lasts)
            disk.turn("up")
            for server in (self._world.redis, self._world.postgres):
                server.turn("up")

    async def _kill_while_saving(self, process: Process, rng: random.Random) -> None:
        """At one of the first steps after it has begun to save."""

        def kill_or_look_again() -> None:
            if process.spool.saving:
                self._world.coverage["killed in a save"] += 1
                self._world.steps.at(self._world.steps.count + rng.randint(0, SAVE_STEPS), process.kill)
            elif not process.ended.is_set():
                self._world.steps.at(self._world.steps.count + 1, kill_or_look_again)

        self._world.steps.at(self._world.steps.count + 1, kill_or_look_again)
        await stop(process)

    async def _kill_the_next(self, fault: Fault, rng: random.Random) -> None:
        """Kill the process that has brought the spool in, before any store has taken that."""
        if await self._next_serves():
            await trio.sleep(rng.uniform(0.0, 2.0))
            await self._kill(fault, rng)

    async def _next_serves(self) -> bool:
        """Wait until a process serves again; returns whether one does in time."""
        with trio.move_on_after(NEXT_SECONDS):
            while self._world.serving is None:  # noqa: ASYNC110 - no process says when it begins to serve
                await trio.sleep(POLL_SECONDS)
            return True
        return False

    def _damage(self, rng: random.Random) -> None:
        disk = self._world.disk
        if not disk.readable():
            return
        number = rng.choice(disk.readable())
        disk.damaged.add(number)
        self._world.note(f"spool {number} damaged")
        if not any(number in process.spool.known for process in self._world.processes):
            self._world.count_losses(None)

    # ---- two services ----

    async def _second(self, fault: Fault, rng: random.Random) -> None:
        """Another service on the same stores, while the first or the second is well or in trouble."""
        if not self._world.processes:
            return
        first, second = self._world.serving, self._world.start(self._living)
        trouble = {"frozen": self._freeze, "killed": self._kill, "network": self._network}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._live_beside, fault, second)
            _, _, what = fault.kind.partition(", ")
            if not what:
                return
            role, what = what.split(" ")[:2]
            if role == "second":
                await trio.sleep(rng.uniform(0, fault.lasts / 2))
            victim = first if role == "first" else second
            if victim is not None and not victim.ended.is_set():
                nursery.start_soon(trouble[what], fault, rng, victim)

    async def _live_beside(self, fault: Fault, second: Process) -> None:
        with trio.move_on_after(fault.lasts + fault.detail % 3 * SECOND_SECONDS):
            await second.ended.wait()
        if not second.ended.is_set() and not second.stopping.is_set():
            second.stop()
            await second.ended.wait()


async def stop(process: Process) -> None:
    """Stop a process in order. One that is frozen has its time after that.

    Raises:
        Wrong: it takes too long.
    """
    process.stop()
    await ended_in_time(process, STOP_SECONDS)


async def ended_in_time(process: Process, seconds: float) -> None:
    """Wait for the end of a process.

    Raises:
        Wrong: it takes longer than that, since it was thawed.
    """
    while not process.ended.is_set():
        thawed = process.redis.thawed
        with trio.move_on_after(seconds):
            await process.ended.wait()
            return
        if thawed is None and process.redis.thawed is None:
            raise Wrong(f"{process.boot} has not ended {seconds} s after it was told to")
        if process.redis.thawed is not None:
            await process.redis.thawed.wait()
