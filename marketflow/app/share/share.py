"""A share: the live state and the writers of a set of exchanges under one lease, made and ended as one.

```
 made ──lease──> leased ──begin──> accepting ──run──> writing ──end──> drained ──save──> over
```
A single machine has one share with all exchanges. Several may run side by side, in one process too, as long
as no exchange is in two of them: each has a scope of its own on the stores.
"""

from __future__ import annotations

import math
from typing import Final

import attrs
import trio

from marketflow.app.instruments.stores import StoreState
from marketflow.app.share.aggregating import Aggregator
from marketflow.app.share.book import Book
from marketflow.app.share.earlier_trades import EarlierTrades
from marketflow.app.share.figures import ShareFigures
from marketflow.app.share.flushing import Flusher
from marketflow.app.share.known_bars import BookBars
from marketflow.app.share.lease import Lease
from marketflow.app.share.ledger import FENCED
from marketflow.app.share.spooling import Spooling
from marketflow.app.share.standing import ShareStanding

PACK_SECONDS: Final = 10
"""Bars of a minute that does not change for so long are packed."""


@attrs.frozen
class Share:
    """The live state of a set of exchanges, and its writers. Made by `marketflow.app.share.making`."""

    book: Book
    flusher: Flusher
    aggregator: Aggregator
    spooling: Spooling
    earlier_trades: EarlierTrades
    leases: Lease
    """Of both stores."""
    bars: BookBars
    standing: ShareStanding

    @property
    def redis(self) -> StoreState:
        """Whether Redis is away."""
        return self.leases.window.state

    @property
    def postgres(self) -> StoreState:
        """Whether PostgreSQL is away."""
        return self.leases.database.state

    @property
    def figures(self) -> ShareFigures:
        """Its numbers, for health and measurements."""
        return ShareFigures(self.book, self.flusher, self.aggregator)

    async def lease(self) -> None:
        """Take the lease of both stores, waiting for another boot to end.

        A store that is away is not waited for: its lease is taken once it answers.

        Raises:
            StoreTaken: another boot has not ended in 10 s.
            StoreUnfit: a store answers, and waiting does not make it fit for us.
        """
        await self.leases.take()

    async def begin(self, now: int, *, recorded_from: float = math.inf) -> None:
        """Updates may enter from `now` (Unix ms) on. What the last stop has spooled is brought in first.

        Without bars of seconds from `recorded_from` (ms) on: their updates come once more, see Spooling.

        Which trades earlier boots had is read from the window.
        If it is cancelled, as by a stop, the spool stays as it is, and the next start brings it in.
        """
        self.book.begin(now)
        await self.spooling.bring_in(recorded_from)
        await self.earlier_trades.read()

    async def run(self) -> None:
        """Write to the stores, until `end` was called and all is written that they take.

        Raises:
            StoreTaken: another boot has taken the lease from us.
        """
        async with trio.open_nursery() as packing:
            packing.start_soon(self._pack)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.flusher.run)
                nursery.start_soon(self.aggregator.run)
                nursery.start_soon(self.spooling.remove_when_stored)
            packing.cancel_scope.cancel()

    async def _pack(self) -> None:
        while True:
            await trio.sleep(PACK_SECONDS)
            await self.book.bars.pack()

    def end(self, *, closes: bool = False) -> None:
        """No update will enter any more: every feed and pool of its exchanges has ended.

        `closes`: nobody else accepts updates of the exchanges either, so open intervals get their rows now.
        """
        if closes:
            self.aggregator.close_all()
        self.book.end()

    def give_up(self) -> None:
        """In a cluster, when another node has taken its exchange: what was not written is dropped."""
        self.leases.end()
        self.book.flushes.drop_pending(FENCED)

    @property
    def unwritten(self) -> int:
        """Closed intervals without a row, of which the window has no bars any more. Nobody else has them."""
        return len({(pair, start) for pair, (start, _), _ in self.book.rows.folded()})

    async def save(self, within: float) -> int:
        """At the very end, however it came: spool the bars that no store has taken. Returns how many.

        Raises:
            BarsLost: that failed, or took longer than `within` (seconds).
        """
        self.book.flushes.drop_pending()
        return await self.spooling.save(within)
