"""Makes and runs a tenure: the share and the feed of an exchange, for as long as this node has it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import attrs

from marketflow.app.cluster.hold import Hold
from marketflow.app.cluster.node_figures import NodeFigures
from marketflow.app.cluster.node_health import NodeHealth
from marketflow.app.cluster.tenure import run_tenure
from marketflow.app.cluster.views import ClusterViews, OwnView
from marketflow.app.ingest.feeds import Feed
from marketflow.app.ingest.workers import run_pool
from marketflow.app.knowledge import View
from marketflow.app.ports import Clock, Source, VenueSource
from marketflow.app.share.share import Share


@attrs.frozen(kw_only=True)
class Tenancy:
    """What all tenures of a node have in common. Fills the port Tenure."""

    share_of: Callable[[Hold, VenueSource[Any] | None], Share]
    """Makes the share of a term."""
    source_of: Callable[[str], Source[Any]]
    """Makes a source of an exchange."""
    feed_of: Callable[[Source[Any], Share], Feed]
    """Makes the feed of a share."""
    views: ClusterViews
    figures: NodeFigures
    health: NodeHealth
    clock: Clock
    workers: int
    spool_seconds: float
    """How long it may take to spool what no store has taken."""

    async def __call__(self, hold: Hold) -> int:
        """Have the exchange until it is lost, or to be given back.

        Raises:
            BarsLost: no store has taken some bars, and they could not be spooled.
        """
        exchange = hold.term.exchange
        source = self.source_of(exchange)
        venue = source if isinstance(source, VenueSource) else None
        share = self.share_of(hold, venue)
        feed = self.feed_of(source, share)
        own = OwnView(View(share.bars, share.standing), hold.confirmed, lambda: share.redis.up)

        async def feeding(leaving: Any) -> None:
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
            self.health.runs(exchange, feed, venue),
        ):
            met = await run_tenure(hold, share, feeding, self.clock)
            if not hold.lost.is_set():
                await share.save(self.spool_seconds)
        return met
