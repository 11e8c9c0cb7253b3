"""Makes and runs a tenure: the share and the feed of an exchange, for as long as this node has it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from typing import Any

import attrs
import trio

from marketflow.app.cluster.hold import Hold
from marketflow.app.cluster.node_figures import NodeFigures
from marketflow.app.cluster.tenure import run_tenure
from marketflow.app.cluster.views import ClusterViews, OwnView
from marketflow.app.ingest.feeds import Feed
from marketflow.app.ingest.workers import run_pool
from marketflow.app.knowledge import View
from marketflow.app.ports import NEVER, Clock, Source, Term, VenueSource, Window
from marketflow.app.share.share import Share
from marketflow.app.share.spooling import BarsLost


@attrs.frozen(kw_only=True)
class Tenancy:
    """What all tenures of a node have in common. Fills the port Tenure."""

    window_of: Callable[[Term, Callable[[], bool]], AbstractAsyncContextManager[Window]]
    """The window of a term, and whether the database confirms it. Its connection is closed on leaving."""
    share_of: Callable[[Hold, Window, VenueSource[Any] | None], Share]
    """Makes the share of a term. The source is given if it is a venue."""
    source_of: Callable[[str], Source[Any]]
    """Makes a source of an exchange."""
    feed_of: Callable[[Source[Any], Share], Feed]
    """Makes the feed of a share."""
    views: ClusterViews
    figures: NodeFigures
    reporting: Callable[[Feed, VenueSource[Any] | None], AbstractContextManager[None]]
    """The feed is reported on for the length of the block."""
    clock: Clock
    workers: int
    spool_seconds: float
    """How long it may take to spool what no store has taken."""

    async def __call__(self, hold: Hold) -> int:
        """Have the exchange until it is lost, or to be given back.

        Raises:
            BarsLost: no store has taken some bars, and they could not be spooled.
        """
        source = self.source_of(hold.term.exchange)
        venue = source if isinstance(source, VenueSource) else None
        async with self.window_of(hold.term, hold.confirmed) as window:
            share = self.share_of(hold, window, venue)
            return await self._run(hold, share, self.feed_of(source, share), venue)

    async def _run(self, hold: Hold, share: Share, feed: Feed, venue: VenueSource[Any] | None) -> int:
        exchange = hold.term.exchange
        own = OwnView(View(share.bars, share.standing), hold.confirmed, lambda: share.redis.up)

        async def feeding(leaving: trio.Event) -> None:
            await run_pool(
                partial(feed.run, stopping=leaving),
                decode=feed.decode,
                enter=share.book.enter,
                workers=self.workers,
                first=feed.next_chunk,
            )

        with (
            self.figures.counted(exchange, share),
            self.views.owned(exchange, own),
            self.reporting(feed, venue),
        ):
            met = await run_tenure(hold, share, feeding, self.clock)
            if not hold.lost.is_set():
                await self._save(share, fenced=met != NEVER)
        if met != NEVER or hold.lost.is_set():
            self.figures.fenced["redis" if met != NEVER else "postgres"] += 1
        return met

    async def _save(self, share: Share, *, fenced: bool) -> None:
        """Spool what no store has taken.

        A fenced share lacks bars of updates that came after the next term had begun. Those are dropped and
        counted, and the node goes on with its other exchanges.
        """
        try:
            await share.save(self.spool_seconds)
        except BarsLost as error:
            if not fenced or error.failure is not None:
                raise
