"""A node of a simulated cluster: the product's member and tenures, on simulated stores and exchanges."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio

from marketflow.adapters.db.memory_leases import LeaseRow
from marketflow.adapters.exchange.reading import LineReader
from marketflow.app.cluster.balance import Balance
from marketflow.app.cluster.clock_offset import ClockOffset
from marketflow.app.cluster.feeding import Feeding, Recording
from marketflow.app.cluster.hold import Ended, Hold
from marketflow.app.cluster.holdings import Holdings, Times
from marketflow.app.cluster.member import Member
from marketflow.app.cluster.modes import ClusterModes
from marketflow.app.cluster.sight import LastSight, WatchedLeases
from marketflow.app.cluster.tenure import run_tenure
from marketflow.app.ingest.backoff import Backoff
from marketflow.app.ingest.feeds import Feed
from marketflow.app.instruments.stores import StoreState
from marketflow.app.ports import Batch, Clock, Decode, Node, StoreTaken, Term
from marketflow.app.share.book import Book
from marketflow.app.share.fence import Held
from marketflow.app.share.making import ShareOptions, make_share
from marketflow.app.share.share import Share
from marketflow.app.share.spooling import SpooledBar, SpoolFailed
from tests.cluster_simulation.mirrors import ShardWindow, SimulatedMirror
from tests.cluster_simulation.plan import MODES, SHARED
from tests.cluster_simulation.servers import (
    ClusterPostgres,
    FencedWindow,
    Shard,
    SimulatedLeases,
    TermStore,
)
from tests.simulation.exchanges import SimulatedConnection, SimulatedExchange, SimulatedSource
from tests.simulation.model import Update
from tests.simulation.stores import Link

MOST_PENDING = 1_000_000
TIMEOUT = 1.0
"""Seconds that a store has for an answer."""


class NoSpool:
    """Fills the port Spool: a node has none for what it had under a term."""

    async def load(self) -> Sequence[SpooledBar]:
        """See the port."""
        await trio.lowlevel.checkpoint()
        return []

    async def save(self, bars: Sequence[SpooledBar], within: float = TIMEOUT) -> None:  # noqa: ARG002
        """See the port."""
        await trio.lowlevel.checkpoint()
        if bars:
            raise SpoolFailed("nowhere", "there is no spool")


@attrs.define(eq=False)
class SimulatedTenure:
    """A term of an exchange at a node."""

    term: Term
    node: SimulatedNode
    share: Share
    window: FencedWindow
    feed: Feed
    given: list[Update] = attrs.field(factory=list)
    """What its feed was given. The first ones, as many as the ledger says, were accepted."""
    over: bool = False
    returned: bool = False
    """Whether it ended by itself, and not because its node was killed."""

    @property
    def accepted(self) -> list[Update]:
        """What it has accepted."""
        return self.given[: self.share.book.ledgers[self.term.exchange].accepted]


@attrs.frozen
class Surroundings:
    """What is the same for all nodes."""

    exchanges: Mapping[str, SimulatedExchange]
    shards: Mapping[str, Shard]
    postgres: ClusterPostgres
    options: ShareOptions
    symbols: Sequence[str]
    clock: Clock
    decode: Decode
    reader: LineReader
    times: Times
    standby: bool
    failed: Callable[[Exception], None]
    received: Callable[[SimulatedTenure, bytes], None]
    entering: Callable[[SimulatedTenure, Batch], None]
    """Called with what enters the book of a shared exchange, in place of `received`."""
    taken: Callable[[LeaseRow | None, LeaseRow], None]
    """Called with the lease of before, and the one that was taken."""


class SimulatedNode:
    """One boot of a node."""

    def __init__(
        self, name: str, boot: str, around: Surroundings, rng: random.Random, role: str = "all"
    ) -> None:
        self.name = name
        self.boot = boot
        self.stopping = trio.Event()
        self.ended = trio.Event()
        self.scope = trio.CancelScope()
        self.postgres = Link(around.postgres, rng, TIMEOUT)
        self.shards = {exchange: Link(shard, rng, TIMEOUT) for exchange, shard in around.shards.items()}
        self.tenures: list[SimulatedTenure] = []
        self.role = role
        self.mirrors = [
            SimulatedMirror(
                exchange,
                self.shards[exchange],
                shard,
                [(exchange, symbol) for symbol in around.symbols],
                around.clock,
            )
            for exchange, shard in around.shards.items()
            if role == "api"
        ]
        self.killed = False
        self.thawed_at = -math.inf
        """When it went on after standing still."""
        self.around = around
        self._rng = rng
        self.refused = False
        """Whether it has ended since another boot of its name lives."""
        sight, times = LastSight(), around.times
        leases = WatchedLeases(
            SimulatedLeases(self.postgres, around.postgres, around.taken),
            sight,
            ClockOffset(around.clock),
            StoreState("postgres"),
        )
        self.modes = ClusterModes("live", MODES, sight, leases)
        self.member = Member(
            Node(name, boot, f"http://{name}", role, "0"),
            mode="live",
            balance=Balance(MODES, lasts=times.lasts, calm=times.calm, shared=SHARED, standby=around.standby),
            holdings=Holdings(leases, self, times=times, elapsed=trio.current_time, entropy=rng),
            leases=leases,
            times=times,
            elapsed=trio.current_time,
        )

    async def run(self) -> None:
        """Live, until stopped or killed."""
        try:
            with self.scope:
                try:
                    async with trio.open_nursery() as mirroring:
                        for mirror in self.mirrors:
                            mirroring.start_soon(mirror.run)
                        await self.member.run(self.stopping)
                        mirroring.cancel_scope.cancel()
                except* StoreTaken:
                    self.refused = True
                    self._die()
        finally:
            self.ended.set()

    @property
    def links(self) -> list[Link]:
        """Its ways to all stores."""
        return [self.postgres, *self.shards.values()]

    @property
    def frozen(self) -> bool:
        """Whether it stands still."""
        return self.postgres.thawed is not None

    def has(self, term: Term) -> bool:
        """Whether the term goes on here."""
        return any(each.term == term and not each.over for each in self.tenures)

    def kill(self) -> None:
        """End it at once: nothing that it does from now on has any effect."""
        self._die()
        self.thaw()
        self.scope.cancel()

    def _die(self) -> None:
        self.killed = True
        for link in self.links:
            link.dead = True

    def freeze(self) -> None:
        """Nothing gets out or in until it is thawed."""
        event = trio.Event()
        for link in self.links:
            link.thawed = event

    def thaw(self) -> None:
        """Go on."""
        self.thawed_at = trio.current_time()
        for link in self.links:
            event, link.thawed = link.thawed, None
            if event is not None:
                event.set()

    @asynccontextmanager
    async def candidacy(self, exchange: str, *, seals: bool) -> AsyncIterator[SimulatedCandidacy]:
        """See the port Tenures."""
        around, link = self.around, self.shards[exchange]
        recording = Recording(
            reading=ShardWindow(link, around.shards[exchange]),
            symbols=around.symbols,
            window_length=around.options.window_length,
            most=MOST_PENDING,
            seconds=4 * around.times.lasts,
        )
        record = recording.record()
        candidacy: SimulatedCandidacy
        source = SimulatedSource(
            around.exchanges[exchange],
            lambda _, line: candidacy.received(line),
            lambda: not self.killed,
            lambda: link.thawed,
            _ignore,
            around.decode,
            around.reader,
            around.failed,
        )
        feed = Feed(
            source,
            backoff=Backoff(0.25, 2.0, self._rng),
            idle_timeout=30.0,
            last_well=partial(record.last_accepted.get, exchange),
        )
        shared = exchange in SHARED and not seals
        candidacy = SimulatedCandidacy(self, Feeding(feed, record, recording, workers=2), shared=shared)
        async with trio.open_nursery() as nursery:
            if shared:
                nursery.start_soon(candidacy.feeding.run)
            yield candidacy
            nursery.cancel_scope.cancel()

    async def have(self, hold: Hold, candidacy: SimulatedCandidacy) -> Ended:
        """Have an exchange for a term."""
        around, exchange = self.around, hold.term.exchange
        link = self.shards[exchange]
        window = FencedWindow(hold.term, link=link, server=around.shards[exchange])
        share = make_share(
            boot=hold.term.id,
            limits={exchange: MOST_PENDING},
            symbols=around.symbols,
            generated=(),
            window=window,
            store=TermStore(around.options.interval, hold.term, link=self.postgres, server=around.postgres),
            spool=NoSpool(),
            clock=around.clock,
            options=around.options,
            held=Held(hold.term, hold.confirmed),
        )
        hold.movable = lambda: share.redis.up
        tenure = SimulatedTenure(hold.term, self, share, window, candidacy.feeding.feed_)
        candidacy.tenure = tenure
        if candidacy.shared:
            note_entering(share.book, partial(around.entering, tenure))
        self.tenures.append(tenure)
        try:
            ended = await run_tenure(hold, share, candidacy.feeding, around.clock)
            tenure.returned = True
            return ended
        finally:
            tenure.over = True


@attrs.define(eq=False)
class SimulatedCandidacy:
    """Fills the port Candidacy."""

    node: SimulatedNode
    feeding: Feeding
    shared: bool
    """Whether it is recorded."""
    tenure: SimulatedTenure | None = None

    @property
    def ready(self) -> bool:
        """See the port."""
        return self.feeding.ready

    async def __call__(self, hold: Hold) -> Ended:
        """See the port."""
        return await self.node.have(hold, self)

    def received(self, line: bytes) -> None:
        """Its feed was given a line. Of what is recorded only what enters the book counts."""
        if not self.shared:
            assert self.tenure is not None
            self.node.around.received(self.tenure, line)


def note_entering(book: Book, note: Callable[[Batch], None]) -> None:
    """Call `note` with each batch before it enters the book."""
    apply = book.apply

    def noted(batch: Batch) -> None:
        note(batch)
        apply(batch)

    book.apply = noted  # type: ignore[method-assign]


def _ignore(_: SimulatedConnection) -> None:
    """Feeds may leave connections at any time here."""
