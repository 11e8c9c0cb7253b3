"""The book: the live state in memory. Batches come in, flushes go out, and the ledgers always add up."""

from __future__ import annotations

import math
from collections.abc import Mapping

import trio

from marketflow.app.ports import Batch, Written
from marketflow.app.share.arrivals import Arrivals
from marketflow.app.share.buffers import Buffers
from marketflow.app.share.flushes import Flushes
from marketflow.app.share.ledger import Ledger
from marketflow.app.share.pending import UpdateRun
from marketflow.app.share.rows import Rows
from marketflow.app.share.second_bars import SecondBars
from marketflow.app.share.sequences import Sequences
from marketflow.app.share.trades import AllTrades


class Book:
    """Live state of one boot: what has entered, in parts that each have a reader of their own.

    All methods that are not awaited are atomic: before and after each of them the ledgers add up.
    """

    def __init__(
        self,
        *,
        boot: str,
        limits: Mapping[str, int],
        window_length: int,
        replay_memory: int,
        interval: int,
    ) -> None:
        """Times in ms.

        Args:
            boot: unique id of this run.
            limits: pending updates at most, by exchange; names every exchange of both modes.
            window_length: updates older than that are not written to the window.
            replay_memory: bytes of acknowledged flushes that are kept.
            interval: length of an aggregate.
        """
        self.ledgers = {exchange: Ledger() for exchange in limits}
        self.bars = SecondBars(boot=boot, interval=interval)
        self.rows = Rows(self.bars)
        self.buffers = Buffers(limits=limits, ledgers=self.ledgers)
        self.flushes = Flushes(
            buffers=self.buffers,
            bars=self.bars,
            ledgers=self.ledgers,
            window_length=window_length,
            replay_memory=replay_memory,
        )
        self.began_at: int | None = None
        """When this boot began to accept updates, as the wall clock said then (Unix ms); None before that."""
        self.began = math.inf
        """The same in seconds of Trio's clock."""
        self.sequences = Sequences()
        self.arrivals = Arrivals()
        self.trades = AllTrades()
        self.last_accepted: dict[str, float] = {}
        """By exchange, when an update was last accepted (seconds of Trio's clock)."""
        self.ended = trio.Event()
        """Set when no batch will enter any more."""

    @property
    def boot(self) -> str:
        """The unique id of this run."""
        return self.bars.boot

    def begin(self, now: int) -> None:
        """Updates will enter from `now` (Unix ms) on.

        To be called when we have the lease of the stores. Until then another boot may accept updates, and
        its sequences must be less than ours.
        """
        self.began_at, self.began = now, trio.current_time()
        self.sequences.begin(now)
        self.arrivals.grow_to(self.sequences.first)

    def follow_others(self) -> None:
        """Bars of other boots were adopted: updates of this boot come after those in them.

        The clock has usually made sure of that. If it was behind at our start, our sequences are too small.
        As long as the window has none of our updates all of them get greater ones. Later this is possible
        only for those that come from now on: what the window has cannot be changed.
        """
        for exchange, others in self.bars.others.next_sequences.items():
            if by := self.sequences.follow(exchange, others, renumber=not self._is_written(exchange)):
                self.bars.renumber(exchange, by)
                self.buffers.renumber(exchange, by)
            self.arrivals.grow_to(max(self.arrivals.next, others))

    def _is_written(self, exchange: str) -> bool:
        """Whether the window has updates of the exchange, or may have some."""
        ledger = self.ledgers.get(exchange)
        in_flight = any(flush.counts.get(exchange) for flush in self.flushes.in_flight)
        return in_flight or (ledger is not None and ledger.cached > 0)

    async def enter(self, batch: Batch) -> None:
        """Take in a batch; while the exchange's buffer is full and Redis answers, wait first."""
        await self.buffers.wait_for_room(batch.exchange, batch.accepted)
        self.apply(batch)

    def apply(self, batch: Batch) -> None:
        """Take in a batch now: counters, bars, and updates to be flushed, in one step."""
        exchange = batch.exchange
        if batch.identity is not None:
            batch = self.trades.of(exchange).sifted(batch, batch.identity)
        self.ledgers[exchange].enter(batch)
        queue, received = self.buffers.queues[exchange], batch.received_monotonic
        accepted = batch.accepted
        first = self.sequences.take(exchange, batch.number, accepted)
        adopted = self.rows.adopted
        for symbol, columns, bars in batch.updates:
            end = first + len(columns.prices)
            for second, bar in bars.items():
                self.bars.add((exchange, symbol), second, bar, first, received)
                # Only now, since adding may show that Redis has lost bars of that minute.
                if adopted.interested:
                    adopted.enter((exchange, symbol), second, bar.shifted(first))
            written = Written(exchange, symbol, range(first, end), columns)
            queue.append(UpdateRun.in_bars(written, received, bars.values()))
            first = end
        if batch.updates:
            self.last_accepted[exchange] = trio.current_time()
            self.arrivals.grow_to(self.arrivals.next + accepted)
        if self.buffers.dropping:
            self.buffers.drop_overflow(exchange)

    def end(self) -> None:
        """No batch will enter any more: every source and pool has ended."""
        self.ended.set()
