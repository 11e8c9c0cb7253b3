"""Makes and runs a tenure: the share and the feed of an exchange, for as long as this node has it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import Any

import attrs
import structlog
import trio

from marketflow.app.cluster.candidates import Candidacy
from marketflow.app.cluster.feeding import Feeding
from marketflow.app.cluster.hold import Ended, Ending, Hold
from marketflow.app.cluster.node_figures import NodeFigures
from marketflow.app.cluster.tenure import run_tenure
from marketflow.app.cluster.views import ClusterViews, OwnView
from marketflow.app.ingest.feeds import Feed
from marketflow.app.knowledge import View
from marketflow.app.ports import NEVER, Clock, Term, VenueSource, Window
from marketflow.app.share.share import Share
from marketflow.app.share.spooling import BarsLost

log = structlog.get_logger()


@attrs.frozen(kw_only=True)
class Tenancy:
    """What all tenures of a node have in common. Fills the port Tenures."""

    window_of: Callable[[Term, Callable[[], bool]], AbstractAsyncContextManager[Window]]
    """The window of a term, and whether the database confirms it. Its connection is closed on leaving."""
    share_of: Callable[[Hold, Window, VenueSource[Any] | None], Share]
    """Makes the share of a term. The source is given if it is a venue."""
    feeding_of: Callable[[str], tuple[Feeding, VenueSource[Any] | None]]
    """Makes a feed of an exchange, with its source if that is a venue."""
    shared: Collection[str]
    """Exchanges that are recorded before their terms."""
    views: ClusterViews
    figures: NodeFigures
    reporting: Callable[[Feed, VenueSource[Any] | None], AbstractContextManager[None]]
    """The feed is reported on for the length of the block."""
    clock: Clock
    spool_seconds: float
    """How long it may take to spool what no store has taken."""

    @asynccontextmanager
    async def candidacy(self, exchange: str, *, seals: bool) -> AsyncIterator[Candidacy]:
        """Be ready to have the exchange. If it is shared, and not only sealed, it is recorded from now on."""
        feeding, venue = self.feeding_of(exchange)
        async with trio.open_nursery() as nursery:
            if exchange in self.shared and not seals:
                nursery.start_soon(feeding.run)
            yield _Candidacy(self, feeding, venue)
            nursery.cancel_scope.cancel()

    async def run(self, hold: Hold, feeding: Feeding, venue: VenueSource[Any] | None) -> Ended:
        """Have the exchange until it is lost, or to be given back.

        Raises:
            BarsLost: no store has taken some bars, and they could not be spooled.
        """
        exchange = hold.term.exchange
        async with self.window_of(hold.term, hold.confirmed) as window:
            share = self.share_of(hold, window, venue)
            hold.movable = lambda: share.redis.up
            own = OwnView(View(share.bars, share.standing), hold.confirmed, lambda: share.redis.up)
            with (
                self.figures.counted(exchange, share),
                self.views.owned(exchange, own),
                self.reporting(feeding.feed_, venue),
            ):
                ended = await run_tenure(hold, share, feeding, self.clock)
                if ended.how is not Ending.LOST:
                    await self._save(share, fenced=ended.how is Ending.FENCED)
                elif share.unwritten:
                    log.error("rows of closed intervals lost", exchange=exchange, rows=share.unwritten)
        if ended.how in {Ending.FENCED, Ending.LOST}:
            self.figures.fenced["redis" if ended.met != NEVER else "postgres"] += 1
        return ended

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


@attrs.frozen
class _Candidacy:
    """Fills the port Candidacy."""

    tenancy: Tenancy
    feeding: Feeding
    venue: VenueSource[Any] | None

    @property
    def ready(self) -> bool:
        """See the port."""
        return self.feeding.ready and (self.venue is None or self.venue.subscribed)

    async def __call__(self, hold: Hold) -> Ended:
        """See the port."""
        return await self.tenancy.run(hold, self.feeding, self.venue)
