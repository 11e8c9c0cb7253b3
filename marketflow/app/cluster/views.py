"""The views of a node's exchanges: a share that it has, or else a mirror.

```
                    the node has the exchange, surely, and its share knows the last hour
         mirror ───────────────────────────────────────────────────────────────────────> share
           ^                                                                               │
           └──────── not sure any more (the database is away), lost, or given back ────────┘
```
A mirror knows all that Redis has acknowledged, so it can answer for an exchange of our own as well: while the
share still reads what earlier terms have left, and while nobody can tell whether the exchange is still ours.
If Redis is away, a mirror knows nothing. Then the share answers from memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from itertools import groupby

import attrs
import trio

from marketflow.app.cluster.merged_views import MergedBars, MergedStanding
from marketflow.app.cluster.mirror import Mirror
from marketflow.app.cluster.mirror_view import view_of
from marketflow.app.knowledge import View
from marketflow.app.share.sequences import PER_MS
from marketflow.domain.bars import Bar
from marketflow.domain.prices import Pair

STREAM_SECONDS = 0.01
"""How often the live stream looks for newer updates while it has clients."""


@attrs.frozen
class OwnView:
    """What a share of this node knows."""

    view: View
    confirmed: Callable[[], bool]
    """Whether the exchange is surely ours."""
    redis_up: Callable[[], bool]

    @property
    def is_best(self) -> bool:
        """Whether it knows at least what a mirror knows."""
        return not self.redis_up() or (self.confirmed() and self.view.standing.history_known)


class ClusterViews:
    """Fills the port Views for a node."""

    def __init__(self, mirrors: Mapping[str, Mirror]) -> None:
        """`mirrors`: one for each exchange of the cluster."""
        self._mirrors = mirrors
        self._own: dict[str, OwnView] = {}

    @contextmanager
    def owned(self, exchange: str, own: OwnView) -> Iterator[None]:
        """This node has the exchange for the length of the block."""
        self._own[exchange] = own
        try:
            yield
        finally:
            del self._own[exchange]

    def of_one(self, exchange: str) -> View:
        """The best view of an exchange at this moment, for one question."""
        own = self._best_own(exchange)
        return view_of(self._mirrors[exchange]) if own is None else own

    async def catch_up(self, exchange: str, pairs: Sequence[Pair]) -> None:
        """Learn of all updates of these pairs of an exchange."""
        own = self._best_own(exchange)
        if own is None:
            await self._mirrors[exchange].catch_up(pairs)
        else:
            await own.bars.catch_up(pairs)

    def newest(self, pair: Pair) -> Bar | None:
        """The bar with the newest update that is known at this moment."""
        own = self._best_own(pair[0])
        return self._mirrors[pair[0]].bars.newest_bars.of(pair) if own is None else own.bars.newest(pair)

    def _best_own(self, exchange: str) -> View | None:
        """What a share of this node knows of an exchange; None if a mirror knows more."""
        own = self._own.get(exchange)
        return own.view if own is not None and own.is_best else None

    def of(self, exchanges: AbstractSet[str]) -> View:
        """The best views of these exchanges, as one."""
        views = {exchange: self.of_one(exchange) for exchange in sorted(exchanges)}
        if len(views) == 1:
            return next(iter(views.values()))
        return View(
            MergedBars({exchange: view.bars for exchange, view in views.items()}),
            MergedStanding([view.standing for view in views.values()]),
        )


class ClusterStream:
    """Fills the port StreamedBars for a node, whose views come and go."""

    def __init__(self, views: ClusterViews, pairs: Sequence[Pair], *, began_at: int) -> None:
        """Pairs are those of both modes.

        Args:
            views: of the node.
            pairs: which are looked at.
            began_at: when the node was started (Unix ms): numbers of a later one are greater.
        """
        self._views = views
        self._pairs = pairs
        self._seen: dict[Pair, Bar] = {}
        self.arrived = began_at * PER_MS
        """It grows when a pair has a newer update."""

    async def catch_up(self, pairs: Sequence[Pair]) -> None:
        """Learn of all updates of these pairs."""
        async with trio.open_nursery() as nursery:
            for exchange, of_exchange in groupby(sorted(pairs), key=lambda pair: pair[0]):
                nursery.start_soon(self._views.catch_up, exchange, list(of_exchange))

    async def wait_for_updates(self, since: int) -> int:
        """Wait until a pair has a newer update."""
        while self.arrived <= since:
            await self.catch_up(self._pairs)
            newest = {pair: bar for pair in self._pairs if (bar := self.newest(pair)) is not None}
            if newest != self._seen:
                self._seen = newest
                self.arrived += 1
            else:
                await trio.sleep(STREAM_SECONDS)
        return self.arrived

    def newest(self, pair: Pair) -> Bar | None:
        """The bar with the newest update."""
        return self._views.newest(pair)
