"""One process of the service in a simulation: its clock, its links, and what its feeds were given."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import attrs
import trio

from marketflow.app.interface import Counters, Questions
from marketflow.app.share.spooling import BarsLost
from marketflow.outside import Front
from tests.simulation.disk import SimulatedSpool
from tests.simulation.model import Update
from tests.simulation.stores import Link, SimulatedStore, SimulatedWindow
from tests.simulation.trades import Sieve

NOON: Final = 1_795_340_400_000
"""The wall clock at the beginning of each history (Unix ms)."""


class Wrong(AssertionError):
    """A promise was broken."""


async def ends_within(seconds: float, history: Callable[[], Awaitable[None]]) -> None:
    """Run a history, which must end within so many virtual seconds.

    Raises:
        Wrong: it has not: something waits for ever. Or a promise was broken.
    """
    with trio.move_on_after(seconds):
        await history()
        return
    raise Wrong(f"the history has not ended after {seconds:.0f} s")


class SimulatedClock:
    """The wall clock of a process: the true time, and the steps that faults make it take."""

    def __init__(self) -> None:
        self.offset = 0
        """ms"""

    def now(self) -> int:
        """Unix ms."""
        return true_time() + self.offset


def true_time() -> int:
    """Unix ms by a clock that does not step."""
    return NOON + int(trio.current_time() * 1_000)


@attrs.define(eq=False)
class Process:
    """One boot of the service."""

    boot: str
    clock: SimulatedClock
    redis: Link
    postgres: Link
    window: SimulatedWindow
    store: SimulatedStore
    spool: SimulatedSpool
    step: Callable[[], int]
    """Gives the number of the present step of all tasks."""
    stopping: trio.Event = attrs.field(factory=trio.Event)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    ended: trio.Event = attrs.field(factory=trio.Event)
    questions: Questions | None = None
    """What can be asked of it; None until it has got so far."""
    started: bool = False
    """Whether it has begun to serve."""
    outcome: str = ""
    """How it ended."""
    told_lost: BarsLost | None = None
    """What it said to have lost at its end."""
    given: defaultdict[str, list[Update]] = attrs.field(factory=lambda: defaultdict(list))
    """By exchange, the updates among the lines that its feed was given."""
    sieves: dict[str, Sieve] = attrs.field(factory=dict)
    """By exchange with ids, what must become of its trades."""
    refused: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    """By exchange and reason, how many of these lines are to be rejected."""
    beside: float = math.inf
    """Since when another process served at the same time: what counts then, and how often, is in doubt."""
    started_at: float = math.inf
    """When it began to serve (seconds of Trio's clock)."""
    stopped_at: float = math.inf
    """When it was asked to stop."""
    stopped_step: float = math.inf
    """The step before which, or in which, it was asked to stop."""
    switching: int = 0
    """How many switches of its mode go on."""
    began: int = 0
    """The true time (ms) at which it was started."""
    predecessors: frozenset[str] = frozenset()
    """The boots that had ended when it was started."""
    back_at: float = -math.inf
    """When it was thawed, or reached its stores again, the last time."""
    killed_at: float = math.inf
    """When it was killed. A write that was on its way may keep it for a while after that."""
    robbed: bool = False
    """Whether Redis has lost something after it had written its last."""
    was_frozen: bool = False
    """Whether it stood still for a while: a stop may take so much longer."""
    left: frozenset[str] = frozenset()
    """The exchanges of a mode that was left: nothing of them may come any more."""

    def counters(self) -> Mapping[str, Counters]:
        """By exchange, what became of its lines."""
        if self.questions is None:
            return {}
        return self.questions.health.counters()

    def stop(self) -> None:
        """Ask it to stop."""
        self.stopped_at = min(self.stopped_at, trio.current_time())
        self.stopped_step = min(self.stopped_step, self.step())
        self.stopping.set()

    @property
    def dead(self) -> bool:
        """Whether it was killed."""
        return self.redis.dead

    def kill(self) -> None:
        """End it at once: nothing that it does from now on has any effect."""
        if not self.dead and not self.ended.is_set():
            self.redis.dead = self.postgres.dead = True
            self.killed_at = trio.current_time()
            self.store.leave()
            self.thaw()
            self.scope.cancel()

    def cancel(self) -> None:
        """Cancel all its tasks, as Trio does when one of them fails."""
        if not self.dead and not self.ended.is_set() and not self.outcome:
            self.outcome = "cancelled"
            self.scope.cancel()

    def freeze(self) -> None:
        """Nothing that it does gets out, and nothing gets in, until it is thawed."""
        self.redis.thawed = self.postgres.thawed = trio.Event()
        self.was_frozen = True

    def thaw(self) -> None:
        """Go on."""
        if self.redis.thawed is not None:
            self.redis.thawed.set()
        self.redis.thawed = self.postgres.thawed = None
        self.back_at = trio.current_time()


def quiet_front(process: Process) -> Front:
    """In place of the HTTP server: the world asks directly."""

    async def run(questions: Questions, stopping: trio.Event, *, task_status: trio.TaskStatus[str]) -> None:
        process.questions = questions
        task_status.started("simulated")
        await stopping.wait()

    return run
