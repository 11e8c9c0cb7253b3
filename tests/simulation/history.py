"""Run the history of a seed, and find the least faults with which it still fails."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence

import attrs
import structlog
import trio

from tests.simulation.mutants import mutated
from tests.simulation.plan import Fault, Plan
from tests.simulation.planted import PLANTED
from tests.simulation.scheduling import Steps, run
from tests.simulation.states import counted
from tests.simulation.world import World


@attrs.frozen
class History:
    """What became of one seed."""

    seed: int
    digest: str
    """The hash over every step."""
    steps: int
    seconds: float
    """Virtual ones."""
    coverage: Counter[str]
    log: Sequence[str]
    failure: str | None
    """The promise that was broken, None if none was."""


def run_history(plan: Plan, mutant: str | None = None, *, told: bool = False) -> History:
    """The history of a plan, with a planted bug or without.

    `told`: the service's own log is printed as it goes on.
    """
    worlds: list[World] = []
    failure = None
    coverage: Counter[str] = Counter()
    with mutated(PLANTED[mutant] if mutant else None), logged(told=told), counted(coverage):

        async def main(steps: Steps) -> None:
            worlds.append(World(plan, steps, coverage))
            await worlds[0].run()

        try:
            run(main, plan.seed)
        except Exception as error:  # noqa: BLE001 - whatever ended the history is its failure
            failure = first(error)
    world = worlds[0]
    steps = world.steps
    return History(plan.seed, steps.digest, steps.count, steps.seconds, world.coverage, world.log, failure)


def first(error: BaseException) -> str:
    """The error in words; of a group its first one."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def logged(*, told: bool) -> Iterator[None]:
    """Within it the service's log is printed with virtual times, or not at all."""

    def stamp(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        with contextlib.suppress(RuntimeError):
            event["at"] = f"{trio.current_time():8.3f}"
        return event

    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if told else logging.CRITICAL),
        processors=[
            structlog.processors.add_log_level,
            stamp,
            structlog.processors.KeyValueRenderer(key_order=["at", "level", "event"]),
        ],
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)


def shrunk(plan: Plan, mutant: str | None = None) -> tuple[Plan, History]:
    """The plan with as few faults as it fails with, and how it does. It must fail."""
    best = run_history(plan, mutant)
    size = max(1, len(plan.faults) // 2)
    while True:
        for first in range(0, len(plan.faults), size):
            faults: tuple[Fault, ...] = (*plan.faults[:first], *plan.faults[first + size :])
            smaller = attrs.evolve(plan, faults=faults)
            tried = run_history(smaller, mutant)
            if tried.failure is not None:
                plan, best = smaller, tried
                break
        else:
            if size == 1:
                return plan, best
            size = max(1, size // 2)
