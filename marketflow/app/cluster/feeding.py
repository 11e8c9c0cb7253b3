"""The feed of an exchange and its pool, in front of a record.

```
             run, if it is shared           feed                            leaving
 not begun ────────────────────────> begun ──────────> feeding a term's book ──────> ended
     └──────────── feed, of any other ───────────────────────^
```
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import attrs
import structlog
import trio

from marketflow.app.cluster.record import FOREVER, Record, RecordState
from marketflow.app.ingest.feeds import Feed
from marketflow.app.ingest.workers import run_pool
from marketflow.app.ports import StoreAway, WindowReading
from marketflow.app.share.share import Share
from marketflow.domain.prices import PriceUpdate

log = structlog.get_logger()

SIFT_SECONDS: Final = 0.25
"""How often it is tried to read a window that is away."""
SPANS: Final = 10
"""Seconds of symbols that are read at once: each question has the time limit of the store."""


@attrs.frozen
class Recording:
    """How exchanges are recorded."""

    reading: WindowReading
    """Reads what the window has."""
    symbols: Sequence[str]
    """All symbols of an exchange."""
    window_length: int
    """For how long (ms) it has updates."""
    most: int
    """Updates of an exchange that are kept, about."""
    seconds: float
    """For how long they are kept."""

    def record(self) -> Record:
        """A new record."""
        return Record(most=self.most, seconds=self.seconds)


class Feeding:
    """Feeds a record, and then the book of a term, over one and the same connection."""

    def __init__(self, feed: Feed, record: Record, recording: Recording, *, workers: int) -> None:
        """`workers`: how many the pool has."""
        self.feed_ = feed
        self._record = record
        self._recording = recording
        self._workers = workers
        self._begun = False
        self._stopping = trio.Event()
        self._ended = trio.Event()

    @property
    def ready(self) -> bool:
        """Whether what the exchange sends is recorded."""
        return self._begun and self.feed_.connected and self._record.state is RecordState.RECORDING

    async def run(self) -> None:
        """Run the feed and its pool, until `feed` ends them, or this is cancelled."""
        self._begun = True
        await run_pool(
            partial(self.feed_.run, stopping=self._stopping),
            decode=self.feed_.decode,
            enter=self._record.enter,
            workers=self._workers,
            first=self.feed_.next_chunk,
        )
        self._ended.set()

    def keep(self, now: int) -> int:
        """Keep all from `now` (Unix ms) on. Returns from which second on (ms) nothing is missing.

        FOREVER if it is not known to have anything: nothing is recorded, or the connection is away.
        """
        if self._begun and self.feed_.connected:
            return self._record.keep(self.feed_.state.since, now)
        self._record.kept.keep_all()
        return FOREVER

    async def sift(self, share: Share, now: int) -> None:
        """Sift out of the record what earlier terms have stored. The window must answer for that.

        The exchange is sealed before. So what the window has does not change any more.

        Args:
            share: of the term that has begun.
            now: the wall clock's time (Unix ms).
        """
        while self._begun:
            try:
                await share.leases.window.ensure()
                known = await self._read(now)
            except StoreAway:
                await trio.sleep(SIFT_SECONDS)
            else:
                break
        else:
            known = []
        for update in known:
            if update.id is not None:
                share.book.trades.of(update.exchange).know(update.symbol, [update.id])
        spooled = share.spooling.seconds_of(self.feed_.exchange)
        for symbol, ids in self._record.ids_of(spooled):
            share.book.trades.of(self.feed_.exchange).know(symbol, ids)
        if not self._record.kept.reaches_back:
            kept = self._record.kept
            log.warning(
                "record too short", exchange=self.feed_.exchange, recorded=kept.size, dropped=kept.dropped
            )
        since = max(now, self._record.newest) - self._recording.window_length
        self._record.sift(known, since, spooled)
        share.spooling.recorded()

    async def _read(self, now: int) -> list[PriceUpdate]:
        """What the window has in the seconds of the record."""
        exchange, reading = self.feed_.exchange, self._recording.reading
        spans = [
            ((exchange, symbol), span) for symbol, span in self._record.spans(self._recording.symbols, now)
        ]
        found = [await reading.updates(spans[at : at + SPANS]) for at in range(0, len(spans), SPANS)]
        return [update for some in found for of_span in some for update in of_span]

    def cut_off(self) -> None:
        """The exchange was lost: nothing gets into its book any more."""
        self._record.cut_off()

    async def feed(self, share: Share, leaving: trio.Event) -> None:
        """Feed the share's book until `leaving` is set, and all that was received is in the book.

        What was recorded and not sifted, since the exchange is to be given back already, is forgotten.
        """
        async with trio.open_nursery() as nursery:
            if not self._begun:
                nursery.start_soon(self.run)
            if self._record.state is RecordState.SIFTED:
                await self._record.open(share.book.enter)
            else:
                self._record.close()
            await leaving.wait()
            self._stopping.set()
            await self._ended.wait()
