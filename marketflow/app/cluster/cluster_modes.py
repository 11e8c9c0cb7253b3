"""The mode of a cluster: what all nodes have agreed on, and the switch.

A switch is one row in the database. Each node that sees it gives back its exchanges of the old mode, in
order. The mode is the new one when all of them were given back. Those of a node that is dead are taken by
another one, which gives them back at once (`balance`). So modes never mix.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

import structlog
import trio

from marketflow.app.answers import NothingCanAnswer
from marketflow.app.cluster.sight import LastSight
from marketflow.app.interface import Mode
from marketflow.app.ports import Leases, StoreAway

log = structlog.get_logger()

SWITCH_SECONDS: Final = 30.0
"""How long a switch may take. Longer than a dead node's leases stay, and an exchange's feed takes to end."""
LOOK_SECONDS: Final = 0.05


class ClusterModes:
    """Fills the port ModeQuestions for a node."""

    def __init__(
        self, leases: Leases, sight: LastSight, *, configured: Mode, exchanges: Mapping[str, Mode]
    ) -> None:
        """The mode at first is the configured one.

        Args:
            leases: where the mode is kept.
            sight: what was seen last.
            configured: the mode in the settings.
            exchanges: all of the cluster, with the mode that each belongs to.
        """
        self._leases = leases
        self._sight = sight
        self._configured = configured
        self._exchanges = exchanges

    @property
    def mode(self) -> Mode:
        """The current mode; during a switch the old one."""
        wanted = self._wanted
        of_unreleased = (self._exchanges.get(exchange, wanted) for exchange in self._sight.unreleased)
        return next((mode for mode in of_unreleased if mode != wanted), wanted)

    @property
    def _wanted(self) -> Mode:
        return cast("Mode", self._sight.mode or self._configured)

    async def switch(self, mode: Mode) -> bool:
        """Switch to `mode`; returns whether the mode was another one before.

        Raises:
            NothingCanAnswer: the database is away, it took too long, or another switch came in between.
        """
        before = self.mode
        try:
            await self._leases.switch(mode)
            await self._leases.look()
        except StoreAway as error:
            log.warning("mode not switched", mode=mode, error=str(error))
            raise NothingCanAnswer from error
        with trio.move_on_after(SWITCH_SECONDS):
            while self._wanted == mode:
                if self.mode == mode:
                    return before != mode
                await trio.sleep(LOOK_SECONDS)
        raise NothingCanAnswer
