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

import attrs

from marketflow.app.cluster.merged_views import MergedBars, MergedStanding
from marketflow.app.cluster.mirror import Mirror
from marketflow.app.cluster.mirror_view import view_of
from marketflow.app.knowledge import View
from marketflow.domain.bars import Bar
from marketflow.domain.prices import Pair


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
