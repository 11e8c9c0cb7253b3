"""Simulated Redis and PostgreSQL: the twins in memory, shared by several processes, behind links that fail.

Each way to fail was seen on a real server:
- refused: the server is not there, connections are refused;
- hanging: it is stopped or cut off; what was sent may still take effect when it goes on;
- no replies: the connection breaks after the server did the work, before its answer came;
- half: the connection breaks in the middle of a pipeline, or the server refuses what follows the marker
  (out of memory, no permission);
- emptied, older: FLUSHALL, a restart without persistence, a failover to a replica that lags;
- rows refused: a trigger, a constraint.
tests/integration and tests/faults show the same on real servers.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeVar

import attrs
import msgspec
import trio

from marketflow.adapters.cache.memory import MemoryFlush, MemoryShelf, MemoryWindow
from marketflow.adapters.db.memory import MemoryStore
from marketflow.app.ports import Aggregate, Flush, RowsRefused, Sight, StoreAway, StoreTaken

TURNS_SECONDS: Final = 2.0
"""A writer that finds another on its store ends within this."""

T = TypeVar("T")
Way = Literal["up", "refused", "hanging", "no replies", "half"]


class Server:
    """What a simulated store's server can be told to do, and the state of the way to it."""

    def __init__(self) -> None:
        self.way: Way = "up"
        self.latency = 0.001
        """Seconds that a request takes, about."""
        self.backlog: list[Callable[[], object]] = []
        """What was sent to it while it hung, and was given up by who sent it."""
        self.two_writers: Callable[[str, str], None] = lambda *_: None
        """Called with two processes that have written in turns for too long."""
        self._writers: dict[str, float] = {}
        """When each process has written last."""
        self._changed = trio.Event()

    def turn(self, way: Way) -> None:
        """Change how it behaves. One that hung goes on with what was sent to it meanwhile."""
        if self.way == "hanging" and way != "hanging":
            backlog, self.backlog = self.backlog, []
            if way == "up":
                for request in backlog:
                    request()
        self.way = way
        self._changed.set()
        self._changed = trio.Event()

    def wrote(self, boot: str) -> None:
        """A process has written. Another that did so before, and goes on, is a second writer."""
        now = trio.current_time()
        last = self._writers.pop(boot, None)
        self._writers[boot] = now
        for other, at in self._writers.items():
            if last is not None and last < at < now - TURNS_SECONDS:
                self.two_writers(boot, other)

    def last_write(self, boot: str) -> float:
        """When a process has written last; -inf if it never has."""
        return self._writers.get(boot, -math.inf)

    async def wait_changed(self) -> None:
        """Wait until it behaves in another way."""
        await self._changed.wait()


class Link:
    """One process' way to a server."""

    def __init__(self, server: Server, rng: random.Random, timeout: float) -> None:
        """`timeout` of a request in seconds."""
        self.server = server
        self.dead = False
        """The process was killed: nothing that it does has any effect."""
        self.cut = False
        """This process alone cannot reach the server."""
        self.thawed: trio.Event | None = None
        """The process is frozen until this is set."""
        self._rng = rng
        self._timeout = timeout

    @property
    def way(self) -> Way:
        """How a request fares."""
        return "refused" if self.cut or self.dead else self.server.way

    async def carry(
        self,
        request: Callable[[], T],
        *,
        half: Callable[[], object] | None = None,
        late: Callable[[], object] | None = None,
    ) -> T:
        """Send a request, and wait for its answer; it may be one without the other.

        Args:
            request: takes effect in the server, at once.
            half: takes half of that effect.
            late: takes that effect in a server that hung, when it goes on and nobody waits any more.

        Raises:
            StoreAway: there was no answer.
        """
        with trio.move_on_after(self._timeout):
            return await self._carry(request, half)
        if late is not None and self.way == "hanging" and self._rng.random() < 0.5:
            self.server.backlog.append(late)
        raise StoreAway("simulated: no answer in time")

    async def _carry(self, request: Callable[[], T], half: Callable[[], object] | None) -> T:
        await self._travel()
        while self.way == "hanging":
            await self.server.wait_changed()
        match self.way:
            case "refused":
                raise StoreAway("simulated: connection refused")
            case "half" if half is not None:
                half()
                raise StoreAway("simulated: the connection broke in the middle")
            case "no replies":
                request()
                raise StoreAway("simulated: the connection broke before the answer")
        answer = request()
        await self._travel()
        if self.dead:
            await trio.sleep_forever()
        return answer

    async def _travel(self) -> None:
        if self.thawed is not None:
            with trio.CancelScope(shield=True):
                await self.thawed.wait()
        await trio.sleep(self.server.latency * self._rng.uniform(0.1, 1.0))


# ---- Redis ----


class SimulatedRedis(Server):
    """The server, and what it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.shelf = MemoryShelf()

    def snapshot(self) -> Callable[[], None]:
        """Remember the state of this moment; calling what is returned goes back to it."""
        shelf = self.shelf
        kept = _copied(shelf.members), _copied(shelf.bars), shelf.marker, shelf.lock

        def restore() -> None:
            shelf.members, shelf.bars = _copied(kept[0]), _copied(kept[1])
            shelf.marker, shelf.lock = kept[2], kept[3]

        return restore


def _copied(held: dict[Any, dict[Any, Any]]) -> dict[Any, dict[Any, Any]]:
    """What it holds by pair; the things themselves never change."""
    return {pair: dict(of_pair) for pair, of_pair in held.items()}


class SimulatedWindow(MemoryWindow):
    """Fills the port Window for one process: the twin in memory, behind a link.

    Writes are never cancelled, like the real ones, so that none takes effect after its caller got an error.
    """

    def __init__(self, *, boot: str, link: Link, server: SimulatedRedis) -> None:
        super().__init__(boot=boot, shelf=server.shelf)
        self._link = link
        self._server = server
        self.histories_read = 0
        """How often all bars were read."""
        self.released = False
        """Whether its lease was given back: it writes no more."""
        self.held: defaultdict[str, set[int]] = defaultdict(set)
        """By exchange the sequences of this boot's updates that the server has taken."""

    async def post(self, flush: MemoryFlush) -> bool:
        """See the port."""

        def write() -> None:
            self._write(flush)
            if flush.flush.updates:
                self._server.wrote(self._boot)

        def late() -> None:
            self._write(flush)
            self._posted.pop()

        def half() -> None:
            updates = flush.flush.updates[: len(flush.flush.updates) // 2]
            self._write(MemoryFlush(Flush(updates, ()), flush.pairs, flush.older_than, flush.outdated))
            self._posted.pop()

        earlier, self._posted = self._posted, []
        with trio.CancelScope(shield=True):
            # What was posted before is acknowledged with it, if it is answered.
            await self._link.carry(write, half=half, late=late)
        return self._acknowledge(earlier)

    async def collect(self) -> bool:
        """See the port."""
        earlier, self._posted = self._posted, []
        if earlier:
            with trio.CancelScope(shield=True):
                await self._link.carry(lambda: None)
        return self._acknowledge(earlier)

    def _write_updates(self, flush: Flush) -> None:
        for run in flush.updates:
            self.held[run.exchange].update(run.sequences)
        super()._write_updates(flush)

    async def take(self, found: Sight) -> bool:
        """See the port."""

        def take() -> bool:
            seen = Sight(self.shelf.holder, self.shelf.marker)
            if seen.holder != found.holder or (found.holder is not None and seen != found):
                return False
            self.shelf.hold(self._boot)
            return True

        return await self._link.carry(take)

    async def release(self) -> None:
        """See the port."""

        def release() -> None:
            if self.shelf.holder == self._boot:
                self.shelf.lock = self.shelf.marker = None

        await self._link.carry(release)
        self.released = True

    async def _reach(self) -> None:
        await self._link.carry(lambda: None)

    async def all_bars(self, pairs: Sequence[Any]) -> Any:
        """See the port."""
        found = await super().all_bars(pairs)
        self.histories_read += 1
        return found


# ---- PostgreSQL ----


class SimulatedPostgres(Server):
    """The server's state."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[tuple[str, str, int], Aggregate] = {}
        self.holder: object | None = None
        """Whose connection has the lock."""
        self.refuses_rows = False
        self.refused: set[tuple[str, str, int]] = set()
        """Rows that were refused at least once."""
        self.written: Callable[[str, Aggregate], None] = lambda *_: None
        """Called with each row that is written, and the boot that does it."""
        self.deleted: Callable[[int], None] = lambda _: None
        """Called with the time (ms) before which rows are to be deleted."""

    def refuses(self, rows: Sequence[Aggregate]) -> bool:
        """Whether it refuses any of these rows just now: of most batches some, and not the others."""
        found = {
            (row.exchange, row.symbol, row.end)
            for row in rows
            if self.refuses_rows and (row.end // 1_000 + ord(row.symbol[0]) + len(row.exchange)) % 3 == 0
        }
        self.refused |= found
        return bool(found)

    def break_connections(self) -> None:
        """End all of them, and the lock with them."""
        self.holder = None

    def turn(self, way: Way) -> None:
        """A server that is not there has no connections. One that hangs keeps them."""
        if way == "refused":
            self.break_connections()
        super().turn(way)

    def snapshot(self) -> Callable[[], None]:
        """Remember the rows of this moment; calling what is returned goes back to them."""
        kept = dict(self.rows)

        def restore() -> None:
            self.rows.clear()
            self.rows.update(kept)
            self.break_connections()

        return restore


class SimulatedStore(MemoryStore):
    """Fills the port AggregateStore for one process."""

    def __init__(self, interval: int, *, boot: str, link: Link, server: SimulatedPostgres) -> None:
        super().__init__(interval)
        self._boot = boot
        self._server = server
        self._link = link
        self.rows = server.rows
        self.leased_at = -math.inf
        """When the lock was this process's the last time it asked."""

    @property
    def lost_to_another(self) -> bool:
        """Whether another process has the lock that this one has had."""
        return self._leases > 0 and self._server.holder not in {None, self}

    async def __aexit__(self, *_: object) -> None:
        """Give the lock back, if the server can be reached."""
        self.die()

    def die(self) -> None:
        """Its connections have ended."""
        if self._server.holder is self:
            self._server.holder = None

    async def lease(self) -> int:
        """See the port."""

        def take() -> int:
            if self._server.holder is None:
                self._server.holder = self
                self._leases += 1
            elif self._server.holder is not self:
                raise StoreTaken
            self.leased_at = trio.current_time()
            return self._leases

        try:
            return await self._link.carry(take)
        except StoreAway:
            # The connection is given up, and the server ends it in time.
            self.die()
            raise

    async def write(self, aggregates: Sequence[Aggregate]) -> None:
        """See the port."""

        def write() -> None:
            if self._server.holder is not self:
                raise StoreAway("simulated: not connected")
            if self._server.refuses(aggregates):
                raise RowsRefused("simulated: a trigger")
            put()
            self._server.wrote(self._boot)

        def put() -> None:
            for aggregate in aggregates:
                self._put(aggregate)

        try:
            await self._link.carry(write, late=put)
        except StoreAway:
            self.die()
            raise

    def _put(self, aggregate: Aggregate) -> None:
        self._server.written(self._boot, aggregate)
        key = (aggregate.exchange, aggregate.symbol, aggregate.end)
        known = self.rows.get(key)
        if known is None or aggregate.bar.count >= known.bar.count:
            bar = msgspec.structs.replace(aggregate.bar, open_sequence=0, close_sequence=0)
            self.rows[key] = attrs.evolve(aggregate, bar=bar)

    async def delete_before(self, end: int) -> int:
        """See the port."""
        self._server.deleted(end)
        return await super().delete_before(end)

    async def _answer(self, *, held: bool = False) -> None:
        def answer() -> None:
            if held and self._server.holder is not self:
                raise StoreAway("simulated: not connected")

        await self._link.carry(answer)


class SimulatedSpool:
    """Fills the port Spool for one process: files on a disk that outlives it, one for each save.

    It removes only what it has read or written itself, as the real one does.
    """

    def __init__(self, disk: dict[int, Sequence[Any]], is_dead: Callable[[], bool]) -> None:
        """`disk`: what was saved, by number of the file."""
        self._disk = disk
        self._is_dead = is_dead
        self._seen: list[int] = []

    async def load(self) -> Sequence[Any]:
        """See the port."""
        await trio.lowlevel.checkpoint()
        self._seen = list(self._disk)
        return [bar for number in self._seen for bar in self._disk[number]]

    async def save(self, bars: Sequence[Any], within: float = math.inf) -> None:  # noqa: ARG002 - of the port
        """See the port."""
        await trio.lowlevel.checkpoint()
        if self._is_dead():
            return
        number = max(self._disk, default=0) + 1
        if bars:
            self._disk[number] = list(bars)
        for each in self._seen:
            self._disk.pop(each, None)
        self._seen = [number]
