"""Run the history of a seed."""

from __future__ import annotations

from collections import Counter

from tests.cluster_simulation.plan import Plan
from tests.cluster_simulation.world import World
from tests.simulation.history import History, first, logged
from tests.simulation.scheduling import Steps, run


def run_history(plan: Plan, *, told: bool = False) -> History:
    """The history of a plan. `told`: the service's own log is printed as it goes on."""
    worlds: list[World] = []
    coverage: Counter[str] = Counter()
    failure = None

    async def main(steps: Steps) -> None:
        worlds.append(World(plan, steps, coverage))
        await worlds[0].run()

    with logged(told=told):
        try:
            run(main, plan.seed)
        except Exception as error:  # noqa: BLE001 - kept as the failure of this history
            failure = first(error)
    steps = worlds[0].steps
    return History(plan.seed, steps.digest, steps.count, steps.seconds, coverage, worlds[0].log, failure)
