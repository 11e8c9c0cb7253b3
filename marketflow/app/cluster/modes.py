"""The mode of a cluster: every node tells it, and may switch it. None leads.

```
                    a node writes the wanted mode                the last lease of the old mode is released
 mode is the wanted one ───────────────────────> switching: mode is the old one ───────────────┐
   ^                                                                                           │
   └───────────────────────────────────────────────────────────────────────────────────────────┘
```
Owners of the old mode's exchanges give them back as soon as they see what is wanted (`balance.py`). Nothing
is kept about a switch that is under way: it follows from the wanted mode and the leases.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs
import structlog
import trio

from marketflow.app.answers import NothingCanAnswer
from marketflow.app.cluster.sight import LastSight
from marketflow.app.ports import ClusterSight, Leases, StoreAway, StoreTaken
from marketflow.domain.modes import OTHER, Mode

log = structlog.get_logger()

SWITCH_SECONDS: Final = 60.0
"""How long a switch is waited for. It goes on afterwards."""


def unreleased(sight: ClusterSight, exchanges: Mapping[str, Mode], mode: Mode) -> list[str]:
    """The exchanges of a mode that a node has, or had and has not given back."""
    return [
        exchange
        for exchange, its_mode in exchanges.items()
        if its_mode == mode and (lease := sight.leases.get(exchange)) is not None and not lease.released
    ]


@attrs.frozen
class ClusterModes:
    """Fills the port ModeQuestions for a node."""

    first: Mode
    """The mode until the cluster was seen."""
    exchanges: Mapping[str, Mode]
    sight: LastSight
    leases: Leases

    @property
    def mode(self) -> Mode:
        """The cluster's mode; during a switch still the old one."""
        seen = self.sight.last
        if seen is None or seen.wanted is None:
            return self.first
        wanted = seen.wanted.mode
        return OTHER[wanted] if unreleased(seen, self.exchanges, OTHER[wanted]) else wanted

    @property
    def of_mode(self) -> list[str]:
        """The exchanges of the present mode."""
        mode = self.mode
        return [exchange for exchange, its_mode in self.exchanges.items() if its_mode == mode]

    async def switch(self, mode: Mode) -> bool:
        """Switch the cluster, and wait until that is done; returns whether it was in the other mode before.

        A switch that is under way is waited for first, also if another node began it.

        Raises:
            NothingCanAnswer: the database is away, or it takes longer than a minute. If the new mode was
                written, the switch goes on.
        """
        with trio.move_on_after(SWITCH_SECONDS):
            try:
                return await self._switch(mode)
            except (StoreAway, StoreTaken) as error:
                raise NothingCanAnswer from error
        raise NothingCanAnswer

    async def _switch(self, mode: Mode) -> bool:
        while True:
            generation = await self._done(0)
            if self.mode == mode:
                return False
            if await self.leases.switch(mode, generation):
                break
            # Another switch came first.
        log.info("mode switched", mode=mode)
        await self._done(generation + 1)
        return True

    async def _done(self, least: int) -> int:
        """Wait until no switch is under way, and the mode is of that generation at least; returns which.

        Nobody switches before the switch that came first is done. So a later generation shows that ours was.

        Raises:
            StoreAway: the database is away, or has come back older and has forgotten the switch.
        """
        while True:
            seen = await self.sight.next_look()
            if seen.wanted is None:
                continue
            if seen.wanted.generation < least:
                raise StoreAway("the database has come back older")
            if seen.wanted.generation > least > 0 or self.mode == seen.wanted.mode:
                return seen.wanted.generation
