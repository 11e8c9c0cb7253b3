"""Checks that look at a world while it runs: what has to happen in time, and what must not happen at all."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Final

import trio

from tests.simulation.model import Interval
from tests.simulation.process import Process, Wrong, true_time

if TYPE_CHECKING:
    from tests.simulation.exchanges import SimulatedConnection
    from tests.simulation.world import World

ON_TIME_SECONDS: Final = 5.0
"""A row is there so long after its interval was closed, or a late update came in, while all is well."""
WRITES_ON_TIME: Final = 30
"""As many writes may have to come before it."""
HELD_UP_SECONDS: Final = 1.5
"""No longer than this does a feed leave what came in, while Redis refuses connections."""
HELD_SECONDS: Final = 7.0
"""So long after the last trouble of Redis a service that runs has its hold there for sure."""
SEEN_SECONDS: Final = 3.0
"""A service that has found another on PostgreSQL, and cannot wait, ends within this."""
LOST_SECONDS: Final = 5.0
"""A service that has lost PostgreSQL's lock to another one ends within this."""
AHEAD: Final = 6_500
"""How far (ms) data may be ahead of the true time, at most."""


class Watch:
    """Watches the processes of a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._refused_since = math.inf
        self._lost_since: dict[str, float] = {}

    async def run(self) -> None:
        """Look twice a second, until cancelled."""
        while True:
            for _ in range(4):
                await trio.sleep(0.5)
                self._check_feeds()
                self._check_lock()
            self._check_rows()

    def _check_feeds(self) -> None:
        """With Redis away no feed is held up."""
        now, world = trio.current_time(), self._world
        process = world.serving
        if process is None or process.redis.way != "refused" or process.dead:
            self._refused_since = math.inf
            return
        self._refused_since = min(self._refused_since, now)
        since = max(self._refused_since, process.started_at, process.back_at)
        alone = len(world.processes) == 1 and not process.stopping.is_set()
        if process.redis.thawed is not None or not alone or now - since < HELD_UP_SECONDS:
            return
        for exchange in world.exchanges.values():
            if now - exchange.waiting_since > HELD_UP_SECONDS:
                raise Wrong(
                    f"{process.boot} has left lines of {exchange.name} since {exchange.waiting_since}"
                )

    def _check_lock(self) -> None:
        """A service that has had PostgreSQL's lock, and finds that another has it, ends."""
        now = trio.current_time()
        for process in self._world.processes:
            lost = process.started and process.postgres.way == "up" and process.store.lost_to_another
            if not lost or process.postgres.thawed is not None or process.stopping.is_set():
                self._lost_since.pop(process.boot, None)
            elif now - self._lost_since.setdefault(process.boot, now) > LOST_SECONDS:
                raise Wrong(f"{process.boot} serves although another has had the lock for {LOST_SECONDS} s")

    def _check_rows(self) -> None:
        """While all is well, rows are written in time, whatever others are refused."""
        now, world = trio.current_time(), self._world
        process = world.serving
        patience = ON_TIME_SECONDS + WRITES_ON_TIME * world.postgres.latency
        if (
            process is None
            or len(world.processes) != 1
            or process.stopping.is_set()
            or not process.window.histories_read
            or now - max(process.started_at, world.quiet_since) < patience
        ):
            return
        wall = true_time()
        least: Counter[Interval] = Counter()
        for update in world.updates():
            interval = world.model.interval_of(update)
            closed = interval[1] + world.plan.grace
            if update.at < now - patience and wall - 20_000 < closed < wall - 1_000 * patience:
                least[interval] += 1
        unknown = world.model.tainted.keys() | world.unread()
        for (pair, end), count in least.items():
            if (
                end <= world.model.told_by_rows
                or (pair, end) in unknown
                or (*pair, end) in world.postgres.refused
            ):
                continue
            row = world.postgres.rows.get((*pair, end))
            if row is None or row.bar.count < count:
                raise Wrong(f"a row of {count} updates is not there in time: {pair} {end}: {row}")

    # ---- called where it happens ----

    def check_start(self, process: Process) -> None:
        """A process begins to serve: no other does, where either store can tell.

        Raises:
            Wrong
        """
        if process.stopping.is_set():
            return  # It was stopped while it waited, and accepts nothing.
        if process.store.seen_another:
            raise Wrong(
                f"{process.boot} begins to serve although another had PostgreSQL's lock, and it has not"
            )
        venues = any(exchange.numbering for exchange in self._world.exchanges.values())
        if venues and process.window.known is None:
            raise Wrong(f"{process.boot} begins to serve and has not read which trades earlier boots had")
        since = trio.current_time() - HELD_SECONDS
        for other in self._world.processes:
            serves = other is not process and other.started_at < since and not other.stopping.is_set()
            if serves and self._world.redis_well_since < since:
                raise Wrong(f"{process.boot} begins to serve beside {other.boot}")

    def check_left(self, process: Process, connection: SimulatedConnection) -> None:
        """A feed has left a connection: at a stop it receives once more what has come in by then.

        Raises:
            Wrong
        """
        stopped = process.stopped_step
        excused = process.dead or process.was_frozen or process.switching
        if not excused and connection.received_step < stopped and connection.waiting_step < stopped:
            raise Wrong(f"{process.boot} has left what came in before its stop")

    def check_taken(self, process: Process) -> None:
        """A process that has served ended because of another.

        There is another, by the store that it believed; and on Redis, that one has the lease.

        Raises:
            Wrong
        """
        redis = self._world.redis
        # It has believed so before it saved its bars, for which a disk may take long.
        now = min(trio.current_time(), process.spool.save_began)
        if process.outcome != "taken" or not process.started or now - process.store.refused_at < SEEN_SECONDS:
            return
        if redis.shelf.holder == process.boot:
            raise Wrong(f"{process.boot} ended because of another on Redis, and has the lease itself")
        alive = {each.boot for each in self._world.processes}
        if redis.shelf.holder in process.window.outlived - alive:
            raise Wrong(f"{process.boot} ended because of {redis.shelf.holder}, which it has outlived")
        others = [at for boot, at in redis.acted.items() if boot != process.boot]
        if now - max(others, default=-math.inf) > HELD_SECONDS:
            raise Wrong(f"{process.boot} ended because of another on Redis, and there was none")

    def check_spooled(self, process: Process) -> None:
        """A process has ended because of another: it spools nothing of the time after it had the stores.

        Raises:
            Wrong
        """
        if process.outcome != "taken" or process.beside == math.inf:
            return
        if any(fault.kind.startswith("clock") for fault in self._world.plan.faults):
            return
        held = max(process.beside, process.store.leased_at, self._world.redis.last_write(process.boot))
        until = true_time() + int((held + 1.0 - trio.current_time()) * 1_000)
        bars = [bar for file in self._world.disk.files.values() for bar in file if bar.boot == process.boot]
        if late := [bar for bar in bars if not bar.whole and bar.start > until]:
            raise Wrong(f"{process.boot} has spooled what another has too: {late[0]}, held until {until}")

    def check_deletion(self, end: int) -> None:
        """Rows before `end` (ms) are to be deleted: not because of a clock that is ahead of the data.

        Raises:
            Wrong
        """
        retention = self._world.plan.retention
        if retention is None or end > true_time() + AHEAD - retention:
            raise Wrong(f"rows before {end} are deleted, the retention is {retention}")
