"""`python -m tests.cluster`: many faults, one after the other, and a table of what they have cost."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import attrs
import trio

from tests.cluster.cluster_servers import Cluster
from tests.cluster.stage import Stage, stage
from tests.cluster.stores import DIRECTIONS, ManyRedis
from tests.cluster.table import broken, table
from tests.cluster.trials import (
    STORES,
    Cost,
    cut,
    freeze,
    kill,
    kill_master,
    move_slot,
    restart_all,
    switch_modes,
)
from tests.servers import TcpPostgres

ROUND = 5
"""Trials on one stage. Then all is checked once more, and the next ones begin with empty stores."""
STANDBY: Mapping[str, str] = {"CLUSTER__STANDBY": "true"}
TIMES: Mapping[str, int] = {
    "kills": 20,
    "stops": 20,
    "standby": 5,
    "masters": 10,
    "moves": 10,
    "restarts": 5,
    "cuts": 1,
    "switches": 5,
}
"""How often each kind is tried: `standby` is a kill and a stop, `cuts` one of each partition, `switches` one
to test mode and one back."""


@attrs.frozen
class Trial:
    """A fault, once."""

    fault: str
    """Its name in the table."""
    run: Callable[[Stage, str], Awaitable[list[Cost]]]
    """On a stage, and with the name of the node that it is about."""
    settings: Mapping[str, str] = {}
    """Those that the nodes need for it."""


def trials(times: Mapping[str, int], cluster: Cluster) -> Iterator[Trial]:
    """All of them, in order."""
    yield from [Trial("owner killed", kill)] * times["kills"]
    yield from [Trial("owner stopped", freeze)] * times["stops"]
    for _ in range(times["standby"]):
        yield Trial("owner killed, standby", kill, STANDBY)
        yield Trial("owner stopped, standby", freeze, STANDBY)
    for number in range(times["masters"]):
        yield Trial("master killed", partial(_on_redis, kill_master, cluster, number))
    for number in range(times["moves"]):
        how, atomically = (("at once", True), ("key by key", False))[number % 2]
        move = partial(move_slot, atomically=atomically)
        yield Trial(f"slot moved {how}", partial(_on_redis, move, cluster, number // 2))
    yield from [Trial("all restarted", lambda it, _: restart_all(it))] * times["restarts"]
    for _ in range(times["cuts"]):
        for stores in STORES:
            for direction in DIRECTIONS:
                words = f"cut from {' and '.join(stores)}: {direction}"
                yield Trial(words, partial(cut, stores=stores, direction=direction))
    yield from [Trial("mode switched", switch_modes)] * times["switches"]


async def _on_redis(
    trial: Callable[[Stage, Cluster, str], Awaitable[list[Cost]]],
    cluster: Cluster,
    number: int,
    it: Stage,
    node: str,
) -> list[Cost]:
    """A fault of the part of Redis that has one of the exchanges."""
    del node
    return await trial(it, cluster, it.exchanges[number % len(it.exchanges)])


@attrs.define
class Run:
    """What has happened so far."""

    found: dict[str, list[Cost]] = attrs.field(factory=lambda: defaultdict(list))
    """Costs by row of the table."""
    failures: list[str] = attrs.field(factory=list)
    number: int = 0

    async def trial(self, it: Stage, trial: Trial) -> None:
        """Run one."""
        began = time.monotonic()
        self.number += 1
        costs = await trial.run(it, ("one", "two")[self.number % 2])
        for cost in costs:
            self.found[f"{trial.fault}: {cost.of}" if cost.of else trial.fault].append(cost)
        shown = ", ".join(map(_shown, costs))
        print(f"{self.number:4}. {trial.fault}: {shown} ({time.monotonic() - began:.0f} s)", flush=True)

    async def round(self, some: list[Trial], cluster: Cluster, directory: Path) -> None:
        """Run some of the same settings on one stage, and check all at its end."""
        with TcpPostgres(directory / "postgres", durable=False) as postgres:
            cluster.heal()  # at once: a thread may not start servers
            dsn = postgres.dsn
            async with stage(ManyRedis(cluster), dsn, directory, **some[0].settings) as it:
                for trial in some:
                    await self.trial(it, trial)
                await it.check_end()


async def run(times: Mapping[str, int]) -> Run:
    """Run them. A round that fails is shown, its logs are kept, and the next one begins.

    If none fails, nothing is left behind.
    """
    it = Run()
    with ExitStack() as stack:
        home = Path(tempfile.mkdtemp(prefix="marketflow-cluster-"))
        home.chmod(0o755)  # noqa: ASYNC240 - at once; the stores run as another user when we are root
        stack.callback(_clear, home, it)  # at last, when the servers have ended
        cluster = Cluster(home / "redis", nameless=True)
        stack.callback(cluster.stop)
        cluster.start()
        for number, some in enumerate(_rounds(list(trials(times, cluster)))):
            directory = home / str(number)
            directory.mkdir(mode=0o755)
            try:
                await it.round(some, cluster, directory)
            except Exception as error:  # noqa: BLE001 - it is shown, and the other rounds are run
                it.failures.append(f"{some[0].fault} (logs in {directory})")
                print(f"FAILED: {it.failures[-1]}\n{_reasons(error)}", flush=True)
            else:
                shutil.rmtree(directory)
    return it


def _clear(home: Path, it: Run) -> None:
    """Remove the directory, except for the logs of rounds that failed."""
    shutil.rmtree(home / "redis" if it.failures else home, ignore_errors=True)


def _reasons(error: BaseException) -> str:
    """The errors in a group, each with its own traceback."""
    if isinstance(error, BaseExceptionGroup):
        return "\n".join(map(_reasons, error.exceptions))
    return "".join(traceback.format_exception(error))


def _rounds(left: list[Trial]) -> Iterator[list[Trial]]:
    while left:
        some = [trial for trial in left[:ROUND] if trial.settings == left[0].settings]
        yield some
        left = left[len(some) :]


def _shown(cost: Cost) -> str:
    words = [f"{cost.seconds:.1f} s"] if cost.moved else []
    words += [f"pause {cost.pause:.2f} s"] if cost.pause else []
    words += [f"{cost.missing} missing"]
    return " ".join(words)


def times_of(text: str) -> dict[str, int]:
    """`kills=3,cuts=1` as numbers. Kinds that are not named are left out."""
    found = dict.fromkeys(TIMES, 0)
    for part in text.split(","):
        name, _, number = part.partition("=")
        if name not in TIMES or not number.isdigit():
            raise argparse.ArgumentTypeError(f"{part}: not one of {', '.join(TIMES)} with a number")
        found[name] = int(number)
    return found


def main() -> int:
    """The exit code: 0 if all is as promised."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    whole = ",".join(f"{name}={number}" for name, number in TIMES.items())
    parser.add_argument(
        "--trials", type=times_of, default=TIMES, metavar="KIND=NUMBER,...", help=f"the whole is {whole}"
    )
    it = trio.run(run, parser.parse_args().trials)
    print(f"\nBy fault and exchange, at 40 updates a second of each\n\n{table(it.found)}\n")
    wrong = [*broken(it.found), *(f"failed: {each}" for each in it.failures)]
    print("\n".join(wrong) or "all as promised")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
