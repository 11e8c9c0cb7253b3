"""Simulated Redis and PostgreSQL: the twins in memory, shared by several processes, behind links that fail.

A server fails for all processes at once:
- refused: it is not there, connections are refused;
- hanging: it is stopped; what was sent may still take effect when it goes on;
- no replies: the connection breaks after the server did the work, before its answer came;
- half: the connection breaks in the middle of a pipeline, or the server refuses what follows the marker
  (out of memory, no permission);
- emptied, older: FLUSHALL, a restart without persistence, a failover to a replica that lags;
- rows refused: a trigger, a constraint.

The network fails for one process alone:
- refused: its connections break, and new ones are refused;
- requests lost: nothing that it sends arrives, and its connections stay open;
- answers lost: what it sends arrives and takes effect, and no answer comes back.

`KINDS` in plan.py names for each fault the test that shows it on a real server.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeVar

import trio

from marketflow.adapters.cache.memory import MemoryFlush, MemoryShelf, MemoryWindow
from marketflow.adapters.db.memory import MemoryStore
from marketflow.app.ports import Aggregate, Flush, RowsRefused, Sight, StoreAway, StoreTaken
from marketflow.domain.packed_bars import pack_bar, unpack_bar

TURNS_SECONDS: Final = 2.0
"""A writer that finds another on its store ends within this."""
STILL_SECONDS: Final = 1.0
"""The marker of another boot stands still at least so long before its lease is taken over."""

KNOWN: Final = 200
"""A start knows the ids of so many updates of each pair: the newest ones."""

T = TypeVar("T")
Way = Literal["up", "refused", "hanging", "no replies", "half"]
OwnWay = Literal["up", "refused", "requests lost", "answers lost"]
SILENT: Final = frozenset({"hanging", "requests lost"})
"""Ways on which nothing happens, and nothing breaks either."""
KEEPALIVE_SECONDS: Final = 20.0
"""A server notices within this that a client is gone which could not say goodbye."""
RESET_SECONDS: Final = 1.0
"""Or within this after the network is whole again: the client's host resets the connection."""


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
        self.wake()

    def wake(self) -> None:
        """Have those that wait for an answer look how the way is now."""
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
        self.own: OwnWay = "up"
        """The network between this process alone and the server."""
        self.whole_since = -math.inf
        """When the network became whole the last time."""
        self.backlog: list[Callable[[], object]] = []
        """What the process sent while its requests were lost. Its host may send that again."""
        self.thawed: trio.Event | None = None
        """The process is frozen until this is set."""
        self._rng = rng
        self._timeout = timeout

    def draw(self, most: float) -> float:
        """A time (seconds) up to that."""
        return self._rng.uniform(0.0, most)

    @property
    def way(self) -> Way | OwnWay:
        """How a request fares."""
        if self.dead or self.server.way == "refused":
            return "refused"
        return self.server.way if self.own == "up" else self.own

    def turn(self, way: OwnWay) -> None:
        """Change the network between this process and the server."""
        backlog, self.backlog = self.backlog, []
        if way == "up":
            self.whole_since = trio.current_time()
            if self.server.way == "up":
                for request in backlog:
                    request()
        self.own = way
        self.server.wake()

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
            late: takes that effect when the server or the network goes on and nobody waits any more.

        Raises:
            StoreAway: there was no answer.
        """
        with trio.move_on_after(self._timeout):
            return await self._carry(request, half)
        if late is not None and self.way in SILENT and self._rng.random() < 0.5:
            (self.server if self.way == "hanging" else self).backlog.append(late)
        raise StoreAway("simulated: no answer in time")

    async def _carry(self, request: Callable[[], T], half: Callable[[], object] | None) -> T:
        await self._travel()
        while self.way in SILENT:
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
        if self.way == "answers lost":
            while self.way == "answers lost":
                await self.server.wait_changed()
            if self.way != "up":
                raise StoreAway("simulated: the connection broke before the answer")
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
        self.marked_at = -math.inf
        """When a write has set the marker last."""
        self.acted: dict[str, float] = {}
        """When each process has written, or taken the lease, the last time."""
        self.robbed: Callable[[str, str], None] = lambda *_: None
        """Called with a process that takes the lease, and another that has just written under it."""
        self.read_ids: Callable[[], None] = lambda: None
        """Called when a process reads the ids of trades."""

    def write_late(self) -> None:
        """A write of an earlier boot arrives, which was long on its way: like all it sets the marker."""
        if self.shelf.holder is not None:
            self.shelf.hold(self.shelf.holder)
        self.shelf.marker, self.marked_at = "earlier:1", trio.current_time()

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
        self.outlived: set[str] = set()
        """Boots from which it has taken the lease over."""
        self.released = False
        """Whether its lease was given back: it writes no more."""
        self.held: defaultdict[str, set[int]] = defaultdict(set)
        """By exchange the sequences of this boot's updates that the server has taken."""
        self.known: dict[str, dict[str, list[str]]] | None = None
        """By exchange and symbol the ids that this boot could read at its start.

        None before it has asked; empty if there was no answer."""

    async def post(self, flush: MemoryFlush) -> bool:
        """See the port."""

        def write() -> None:
            self._write(flush)
            if flush.flush.updates:
                self._server.wrote(self._boot)

        def late() -> None:
            if self._takes_late():
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

    def _takes_late(self) -> bool:
        """Whether a write that was long on its way still takes effect."""
        return True

    async def collect(self) -> bool:
        """See the port."""
        earlier, self._posted = self._posted, []
        if earlier:
            with trio.CancelScope(shield=True):
                await self._link.carry(lambda: None)
        return self._acknowledge(earlier)

    def _write(self, write: MemoryFlush) -> None:
        # What is read later has been packed and unpacked, as in the real one.
        bars = [
            (pair, field, unpack_bar(pack_bar(bar, field[0]), field[0]))
            for pair, field, bar in write.flush.bars
        ]
        flush = Flush(write.flush.updates, bars)
        super()._write(MemoryFlush(flush, write.pairs, write.older_than, write.outdated))
        self._server.marked_at = self._server.acted[self._boot] = trio.current_time()

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
            still = trio.current_time() - self._server.marked_at
            if found.holder not in {None, self._boot} and still < STILL_SECONDS:
                self._server.robbed(self._boot, str(found.holder))
            if found.holder is not None:
                self.outlived.add(found.holder)
            self.shelf.hold(self._boot)
            self._server.acted[self._boot] = trio.current_time()
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

    async def ids(self, pairs: Sequence[Any], most: int) -> Any:
        """See the port."""
        self.known = {}
        found = await super().ids(pairs, most)
        self._server.read_ids()
        for exchange, symbol in pairs:
            held = self.shelf.members.get((exchange, symbol), {}).values()
            newest = sorted(held, key=lambda each: (each.timestamp, each.sequence))[-KNOWN:]
            ids = [each.id for each in newest if each.id is not None]
            self.known.setdefault(exchange, {})[symbol] = ids
        return found

    async def all_bars(self, pairs: Sequence[Any]) -> Any:
        """See the port."""
        found = await super().all_bars(pairs)
        self.histories_read += 1
        return found


# ---- PostgreSQL ----


class Session:
    """The connection of a process that writes, as the server sees it."""

    def __init__(self, boot: str, link: Link) -> None:
        self.boot = boot
        self._link = link
        self._notice_at = math.inf

    def leave(self, within: float) -> bool:
        """The process has left it. Returns whether the server knows; else it does so after that time."""
        if self._link.own in {"up", "answers lost"}:
            return True
        self._notice_at = min(self._notice_at, trio.current_time() + within)
        return False

    def noticed(self) -> bool:
        """Whether the server knows by now that the process has left it."""
        now = trio.current_time()
        whole = self._link.own == "up" and now >= self._link.whole_since + RESET_SECONDS
        return self._notice_at < math.inf and (whole or now >= self._notice_at)


class SimulatedPostgres(Server):
    """The server's state."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[tuple[str, str, int], Aggregate] = {}
        self._holder: Session | None = None
        self.refuses_rows = False
        self.refused: set[tuple[str, str, int]] = set()
        """Rows that were refused at least once."""
        self.written: Callable[[str, Aggregate, float], None] = lambda *_: None
        """Called with the boot that writes a row, the row, and when the write was sent."""
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

    @property
    def holder(self) -> Session | None:
        """Which connection has the lock."""
        if self._holder is not None and self._holder.noticed():
            self._holder = None
        return self._holder

    @holder.setter
    def holder(self, session: Session | None) -> None:
        self._holder = session

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
        self._session: Session | None = None
        self._granted = False
        """Whether the process was ever told that it has the lock."""
        self.rows = server.rows
        self.leased_at = -math.inf
        """When the lock was this process's the last time it asked."""
        self.refused_at = -math.inf
        """When another had the lock the last time it asked."""

    @property
    def seen_another(self) -> bool:
        """Whether another process had the lock when this one asked, and this one has never had it."""
        return self.refused_at > -math.inf and not self._granted

    @property
    def lost_to_another(self) -> bool:
        """Whether another process has the lock that this one has had, and knows of."""
        holder = self._server.holder
        return self._granted and holder is not None and holder.boot != self._boot

    async def __aexit__(self, *_: object) -> None:
        """Give the lock back, if the server can be reached."""
        self.leave()

    def leave(self) -> None:
        """Close the connection. A server that does not hear of it keeps the lock for a while."""
        session, self._session = self._session, None
        if session is not None and session.leave(self._link.draw(KEEPALIVE_SECONDS)):
            self._end(session)

    def die(self) -> None:
        """The server ends the connection, and the lock with it."""
        if self._session is not None:
            self._end(self._session)

    def _end(self, session: Session) -> None:
        if self._server.holder is session:
            self._server.holder = None

    @property
    def _holds_lock(self) -> bool:
        return self._session is not None and self._server.holder is self._session

    async def lease(self) -> int:
        """See the port."""

        def take() -> int:
            if not self._holds_lock:
                holder = self._server.holder
                # A former connection of the same process is ended by it.
                if holder is not None and holder.boot != self._boot:
                    self.refused_at = trio.current_time()
                    raise StoreTaken
                self._server.holder = self._session = Session(self._boot, self._link)
                self._leases += 1
            self.leased_at = trio.current_time()
            return self._leases

        try:
            lease = await self._link.carry(take)
        except StoreAway:
            self.leave()
            raise
        self._granted = True
        return lease

    async def write(self, aggregates: Sequence[Aggregate]) -> None:
        """See the port."""
        session, asked = self._session, trio.current_time()

        def write() -> None:
            if not self._holds_lock:
                raise StoreAway("simulated: not connected")
            if self._server.refuses(aggregates):
                raise RowsRefused("simulated: a trigger")
            put()
            self._server.wrote(self._boot)

        def put() -> None:
            for aggregate in aggregates:
                self._server.written(self._boot, aggregate, asked)
                self._put(aggregate)

        def late() -> None:
            if self._link.own == "up" or self._server.holder is session:
                put()

        try:
            await self._link.carry(write, late=late)
        except StoreAway:
            self.leave()
            raise

    async def delete_before(self, end: int) -> int:
        """See the port."""
        self._server.deleted(end)
        return await super().delete_before(end)

    async def _answer(self, *, held: bool = False) -> None:
        def answer() -> None:
            if held and not self._holds_lock:
                raise StoreAway("simulated: not connected")

        await self._link.carry(answer)
