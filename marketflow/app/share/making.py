"""Makes a share: every part of it, from plain values and what is outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from marketflow.app.instruments.clocks import CautiousClock, DataClock
from marketflow.app.instruments.stores import StoreState
from marketflow.app.ports import AggregateStore, Clock, Window
from marketflow.app.share.aggregating import Aggregator
from marketflow.app.share.beginning import Beginning
from marketflow.app.share.book import Book
from marketflow.app.share.closing import Closing
from marketflow.app.share.comparing import Comparison
from marketflow.app.share.database_lease import DatabaseLease
from marketflow.app.share.due_rows import DueRows
from marketflow.app.share.earlier_boots import EarlierBoots
from marketflow.app.share.earlier_trades import EarlierTrades
from marketflow.app.share.fence import Fence, Held
from marketflow.app.share.flushing import Flusher
from marketflow.app.share.joining import Joining
from marketflow.app.share.known_bars import BookBars
from marketflow.app.share.lease import Lease, WriterLease
from marketflow.app.share.pairs import Pairs
from marketflow.app.share.reach import Reach
from marketflow.app.share.reading import OpenMinutes, Reading
from marketflow.app.share.retention import Retention
from marketflow.app.share.rounds import Rounds
from marketflow.app.share.row_writing import RowWriter
from marketflow.app.share.sending import Sender
from marketflow.app.share.share import Share
from marketflow.app.share.spooling import Spool, Spooling
from marketflow.app.share.standing import ShareStanding
from marketflow.app.share.trials import Trials
from marketflow.app.share.trimming import Ages, Trimming
from marketflow.app.share.wake import Wake
from marketflow.app.share.window_lease import WindowLease
from marketflow.domain.prices import Pair


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


def make_share(
    *,
    boot: str,
    limits: Mapping[str, int],
    symbols: Sequence[str],
    generated: Sequence[str],
    numbered: Sequence[Pair] = (),
    window: Window,
    store: AggregateStore,
    spool: Spool,
    clock: Clock,
    options: ShareOptions,
    held: Held | None = None,
) -> Share:
    """Make a share. Nothing runs yet.

    Args:
        boot: unique id of this run.
        limits: pending updates at most, by exchange; these are the share's exchanges.
        symbols: those of every exchange.
        generated: the exchanges whose timestamps are our own clock's.
        numbered: the pairs of exchanges that number their trades.
        window: of the share's scope, as are `store` and `spool`.
        clock: the wall clock.
        options: the same for all shares.
        held: in a cluster, the term under which the share has its exchange; its id is the boot's.
    """
    book = Book(
        boot=boot,
        limits=limits,
        window_length=options.window_length,
        replay_memory=options.replay_memory,
        interval=options.interval,
    )
    pairs = Pairs([(exchange, symbol) for exchange in limits for symbol in symbols], book.bars)
    cautious_clock = CautiousClock(clock, doubt=options.window_length)
    data_clock = DataClock(cautious_clock, book.bars.newest_bars.times, generated=generated)
    redis, postgres = StoreState("redis"), StoreState("postgres")

    # ---- what the parts share ----
    beginning = Beginning(book, clock)
    trials, wake = Trials(redis, book.buffers.set_dropping), Wake(book.arrivals)
    earlier = EarlierBoots(trials, wake)
    database_lease = DatabaseLease(store, state=postgres, earlier=earlier)
    window_lease: WriterLease
    if held is None:
        window_lease = WindowLease(window, boot=boot, state=redis, granted=lambda: database_lease.held)
    else:
        window_lease = Fence(window, held=held, state=redis)
    lease = Lease(database=database_lease, window=window_lease)
    sender = Sender(window, window_lease, trials)
    standing = ShareStanding(
        book=book,
        beginning=beginning,
        earlier=earlier,
        trials=trials,
        sender=sender,
        wake=wake,
        flush_interval=options.flush_interval / 1_000,
        patience=options.patience / 1_000,
    )

    # ---- to the window ----
    ages = Ages(book, clock=cautious_clock, data_clock=data_clock, window_length=options.window_length)
    trimming = Trimming(ages, window=window, sender=sender, trials=trials, pairs=pairs)
    reading = Reading(
        book=book, window=window, earlier=earlier, pairs=pairs, open_minutes=OpenMinutes(beginning, clock)
    )
    joining = Joining(
        book=book, sender=sender, trials=trials, trimming=trimming, earlier=earlier, reading=reading
    )
    rounds = Rounds(
        book=book,
        window=window,
        clock=cautious_clock,
        sender=sender,
        trials=trials,
        trimming=trimming,
        joining=joining,
    )
    flusher = Flusher(
        book=book,
        rounds=rounds,
        trials=trials,
        wake=wake,
        lease=window_lease,
        flush_interval=options.flush_interval / 1_000,
    )

    # ---- to the database ----
    closing = Closing(clock, grace=options.grace)
    retention = Retention(store=store, data_clock=data_clock, pairs=pairs, length=options.retention)
    writer = RowWriter(store=store, state=postgres, due=book.rows)
    rows = DueRows(
        book=book,
        beginning=beginning,
        earlier=earlier,
        standing=standing,
        window=window,
        writer=writer,
    )
    reach = Reach(book, beginning=beginning, closing=closing, data_clock=data_clock)
    comparison = Comparison(
        book=book,
        earlier=earlier,
        store=store,
        pairs=pairs,
        reach=reach,
        kept_from=lambda: retention.kept_from,
    )
    aggregator = Aggregator(
        lease=database_lease,
        earlier=earlier,
        closing=closing,
        rows=rows,
        comparison=comparison,
        retention=retention,
        flusher_ended=flusher.ended,
    )

    spooling = Spooling(
        book=book,
        flusher=flusher,
        spool=spool,
        data_clock=data_clock,
        clock=clock,
        leased_until=lambda: lease.leased_until,
        lateness=options.lateness,
    )
    return Share(
        book=book,
        flusher=flusher,
        aggregator=aggregator,
        spooling=spooling,
        earlier_trades=EarlierTrades(book.trades, window=window, pairs=numbered),
        leases=lease,
        bars=BookBars(book, window_length=options.window_length),
        standing=standing,
    )
