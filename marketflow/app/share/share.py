"""A share: the live state and the writers of a set of exchanges under one lease, made and ended as one.

```
 made ──lease──> leased ──begin──> accepting ──run──> writing ──end──> drained ──save──> over
```
A single machine has one share with all exchanges. Several may run side by side, in one process too, as long
as no exchange is in two of them: each has a scope of its own on the stores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import attrs
import trio

from marketflow.app.ports import AggregateStore, Clock, Window
from marketflow.app.share.aggregating import Aggregator
from marketflow.app.share.book import Book
from marketflow.app.share.flushing import Flusher
from marketflow.app.share.lease import LEASE_PATIENCE
from marketflow.app.share.spooling import Spool, Spooling
from marketflow.app.watch.clocks import CautiousClock, DataClock
from marketflow.app.watch.stores import StoreState


@attrs.frozen
class ShareOptions:
    """What the settings say of all shares. Times in ms."""

    interval: int
    """Of the aggregates."""
    grace: int
    """How long after its end an interval is closed."""
    lateness: int
    """How long after its end late updates may still change it."""
    retention: int | None
    """How long rows are kept; None for ever."""
    window_length: int
    replay_memory: int
    """Bytes of acknowledged flushes that are kept, to be written again when Redis comes back empty."""
    flush_interval: int
    patience: int
    """How long a question waits for what is pending."""


@attrs.frozen
class Share:
    """The live state of a set of exchanges, and its writers. Made by `make_share`."""

    book: Book
    flusher: Flusher
    aggregator: Aggregator
    spooling: Spooling
    redis: StoreState
    postgres: StoreState

    async def lease(self) -> None:
        """Take the lease of both stores, waiting for another boot to end.

        A store that is away is not waited for: its lease is taken once it answers.

        Raises:
            StoreTaken: another boot has not ended in 10 s.
            StoreUnfit: a store answers, and waiting does not make it fit for us.
        """
        deadline = trio.current_time() + LEASE_PATIENCE
        await self.aggregator.take_lease()
        # Last, since nothing renews it until the flusher runs.
        await self.flusher.take_lease(deadline)

    async def begin(self, now: int) -> None:
        """Updates may enter from `now` (Unix ms) on. What the last stop has spooled is brought in first."""
        self.book.begin(now)
        await self.spooling.bring_in()

    async def run(self) -> None:
        """Write to the stores, until `end` was called and all is written that they take.

        Raises:
            StoreTaken: another boot has taken the lease from us.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.flusher.run)
            nursery.start_soon(self.aggregator.run)
            nursery.start_soon(self.spooling.remove_when_stored)

    def end(self) -> None:
        """No update will enter any more: every feed and pool of its exchanges has ended."""
        self.book.end()

    async def save(self, within: float) -> None:
        """At the very end, however it came: spool the bars that no store has taken.

        Raises:
            BarsLost: that failed, or took longer than `within` (seconds).
        """
        self.book.flushes.drop_pending()
        await self.spooling.save(within)


def make_share(
    *,
    boot: str,
    limits: Mapping[str, int],
    symbols: Sequence[str],
    generated: Sequence[str],
    window: Window,
    store: AggregateStore,
    spool: Spool,
    clock: Clock,
    options: ShareOptions,
) -> Share:
    """Make a share. Nothing runs yet.

    Args:
        boot: unique id of this run.
        limits: pending updates at most, by exchange; these are the share's exchanges.
        symbols: those of every exchange.
        generated: the exchanges whose timestamps are our own clock's.
        window: of the share's scope, as are `store` and `spool`.
        clock: the wall clock.
        options: the same for all shares.
    """
    redis, postgres = StoreState("redis"), StoreState("postgres")
    book = Book(
        boot=boot,
        limits=limits,
        window_length=options.window_length,
        replay_memory=options.replay_memory,
        interval=options.interval,
    )
    cautious_clock = CautiousClock(clock, doubt=options.window_length)
    data_clock = DataClock(cautious_clock, book.bars.newest_bars.times, generated=generated)
    flusher = Flusher(
        book=book,
        window=window,
        state=redis,
        clock=cautious_clock,
        data_clock=data_clock,
        pairs=[(exchange, symbol) for exchange in limits for symbol in symbols],
        flush_interval=options.flush_interval / 1_000,
        window_length=options.window_length,
        patience=options.patience / 1_000,
        granted=lambda: aggregator.has_lease,
    )
    aggregator = Aggregator(
        book=book,
        flusher=flusher,
        window=window,
        store=store,
        state=postgres,
        clock=clock,
        data_clock=data_clock,
        grace=options.grace,
        retention=options.retention,
    )
    spooling = Spooling(
        book=book,
        flusher=flusher,
        spool=spool,
        data_clock=data_clock,
        clock=clock,
        leased_until=lambda: min(
            (part.leased_until for part in (flusher, aggregator) if part.another), default=math.inf
        ),
        lateness=options.lateness,
    )
    return Share(book, flusher, aggregator, spooling, redis, postgres)
