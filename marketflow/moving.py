"""From one machine to several, and back: takes along what only Redis and the spool have.

Rows stay where they are, since both use the same database. A single service and the nodes of a cluster have
different keys in Redis, perhaps on different servers. Without a move, the row of the minute of the change and
answers about the last hour would lack what the other one has in its keys.

```
 move              nobody else uses the stores meanwhile:
  ├─ database      has its lock, which nodes share, and a single service has alone
  ├─ nodes         have the fence of each exchange
  ├─ plain         has the lease of the single service's Redis
  └─ copying       copies pair by pair
```
Of the old place only the spool is removed, once the new one has its bars; keys expire within an hour. So
after a failure the old way still works, and a second run does what the first one has not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import attrs

from marketflow.adapters.cache.cluster_side import open_cluster_side
from marketflow.adapters.cache.copying import Copied, Copying, NamedSide, Side, naming
from marketflow.adapters.cache.plain_side import open_plain_side
from marketflow.adapters.db.last_use import Use
from marketflow.adapters.db.sole_use import SoleUse, open_sole_use
from marketflow.adapters.state.spool import decode
from marketflow.app.ports import Field, StoreAway, StoreUnfit, Term
from marketflow.app.share.spooling import Spool, SpooledBar, SpoolFailed
from marketflow.cluster_outside import address_of, node_spool
from marketflow.config import Settings
from marketflow.domain.bars import Bar
from marketflow.domain.periods import HOUR
from marketflow.domain.prices import Pair
from marketflow.outside import single_spool

SINGLE: Final = "the single service's Redis"
NODES: Final = "the nodes' Redis"


@attrs.frozen
class Moved:
    """What the new place has now."""

    copied: Copied
    spooled: int
    """Bars of the old spool that are in Redis now."""
    kept: int
    """Bars of the old spool that Redis does not keep for so long: they are in the new spool."""


async def move(
    settings: Settings,
    use: Use,
    plain_url: str,
    *,
    now: int,
    boot: str,
    progress: Callable[[Copied], None],
) -> Moved:
    """Move what is in Redis and in the spool.

    Args:
        settings: those of a node.
        use: who is to have it.
        plain_url: the Redis of the single service.
        now: Unix ms.
        boot: a unique name on the lease of Redis.
        progress: is called after each write, with what was copied up to now.

    Raises:
        StoreTaken: a service or a node runs, or has begun meanwhile.
        StoreAway: a store does not answer.
        StoreUnfit: a store cannot be used, or has the data of another cluster.
    """
    redis, postgres = settings.redis, settings.postgres
    timeout = redis.timeout / 1_000
    async with (
        open_sole_use(
            postgres.effective_dsn,
            interval=settings.aggregation.interval,
            timeout=postgres.timeout / 1_000,
            lease_ttl=settings.cluster.lease_ttl,
        ) as database,
        open_cluster_side(redis.effective_url, [*map(address_of, redis.nodes)], timeout=timeout) as nodes,
        AsyncExitStack() as stack,
    ):
        with naming("PostgreSQL"):
            terms = await database.take()
        with naming(SINGLE):
            plain = await stack.enter_async_context(open_plain_side(plain_url, boot=boot, timeout=timeout))
        sides = NamedSide(plain, SINGLE), NamedSide(nodes, NODES)
        source, target = sides if use == "nodes of a cluster" else reversed(sides)
        moving = _Moving(settings, source, target, _Spools(settings, use, plain_url, database))
        moved = await moving.run(terms, nodes.seal, now - HOUR, progress)
        with naming("PostgreSQL"):
            await database.moved(use)
        return moved


class _TermSpools:
    """What terms have left in PostgreSQL for the next ones. Fills the port Spool, to be read and emptied."""

    def __init__(self, database: SoleUse) -> None:
        self._database = database
        self._known: list[int] = []

    async def load(self) -> Sequence[SpooledBar]:
        """All of it.

        Raises:
            StoreAway, StoreTaken
            StoreUnfit: some of it cannot be read. It would be missing in the new place.
        """
        bars: list[SpooledBar] = []
        for number, content in await self._database.spooled():
            try:
                bars += decode(content.encode())
            except ValueError as error:
                raise StoreUnfit(f"row {number} of marketflow_spool cannot be read: {error}") from error
            self._known.append(number)
        return bars

    async def save(self, bars: Sequence[SpooledBar], within: float = 5.0) -> None:  # noqa: ARG002 - bounded
        """Remove what was loaded.

        Raises:
            SpoolFailed: there are bars; a term has to save them.
        """
        if bars:
            raise SpoolFailed("postgres", "no term saves them")
        await self._database.unspool(self._known)


class _Spools:
    """The spools of both places: in the configured directory, and what terms have left in PostgreSQL."""

    def __init__(self, settings: Settings, use: Use, plain_url: str, database: SoleUse) -> None:
        self._of_terms = _TermSpools(database)
        self._single = single_spool(settings, plain_url)
        self._of: Final = partial(node_spool, settings)
        self._to_nodes = use == "nodes of a cluster"

    def old(self, exchanges: Iterable[str]) -> Sequence[Spool]:
        """Those of the old place."""
        if self._to_nodes:
            return [self._single]
        return [self._of_terms, *(self._of(exchange) for exchange in exchanges)]

    def new(self, bars: Iterable[SpooledBar]) -> Sequence[tuple[Spool, Sequence[SpooledBar]]]:
        """The bars by the spool of the new place in which they belong."""
        found: dict[str, list[SpooledBar]] = {}
        for each in bars:
            found.setdefault(each.pair[0] if self._to_nodes else "", []).append(each)
        return [(self._of(name) if name else self._single, some) for name, some in found.items()]


@attrs.frozen
class _Moving:
    """Moves, while nobody else uses the stores."""

    settings: Settings
    source: Side
    target: Side
    spools: _Spools

    async def run(
        self,
        terms: Mapping[str, Term],
        seal: Callable[[str, Term | None], Awaitable[None]],
        since: int,
        progress: Callable[[Copied], None],
    ) -> Moved:
        """Move.

        Args:
            terms: the last ones that the database knows.
            seal: seals an exchange in the cluster's Redis.
            since: from when on (Unix ms) Redis keeps bars.
            progress: see `move`.
        """
        configured = [*(each.name for each in self.settings.exchanges), *self.settings.generator.exchanges]
        known = list(dict.fromkeys([*configured, *terms]))
        old = self.spools.old(known)
        spooled = [bar for spool in old for bar in await spool.load()]
        kept = [each for each in spooled if each.whole or each.start < since]
        young = [each for each in spooled if not (each.whole or each.start < since)]
        pairs = dict.fromkeys((exchange, symbol) for exchange in known for symbol in self.settings.symbols)
        pairs |= dict.fromkeys([*await self.source.pairs(known), *(each.pair for each in young)])
        for exchange in dict.fromkeys(exchange for exchange, _ in pairs):
            with naming(NODES):
                await seal(exchange, terms.get(exchange))
        copying = Copying(self.source, self.target, progress)
        bars = _by_pair(young)
        for pair in pairs:
            await copying.copy(pair, bars.get(pair, {}))
        await self._respool(kept, old)
        return Moved(copying.copied, len(young), len(kept))

    async def _respool(self, kept: Sequence[SpooledBar], old: Sequence[Spool]) -> None:
        """Only once all is in the new place, the old one is emptied."""
        try:
            for spool, bars in self.spools.new(kept):
                await spool.save(bars)
            for spool in old:
                await spool.save([])
        except SpoolFailed as error:
            raise StoreAway(f"the spool: {error}") from error


def _by_pair(spooled: Iterable[SpooledBar]) -> Mapping[Pair, Mapping[Field, Bar]]:
    """Bars of seconds. Of two copies the one with more updates is the newer one."""
    found: dict[Pair, dict[Field, Bar]] = {}
    for each in spooled:
        bars, field = found.setdefault(each.pair, {}), (each.start, each.boot)
        if field not in bars or bars[field].count < each.bar.count:
            bars[field] = each.bar
    return found
