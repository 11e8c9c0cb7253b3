"""Reads at the start which trades earlier boots have taken in, so that none is taken in twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog

from marketflow.app.ports import StoreAway, Window
from marketflow.app.share.trades import AllTrades
from marketflow.domain.prices import Pair

log = structlog.get_logger()

IDS_READ: Final = 200
"""Of each symbol. Exchanges send again at most some fifty trades when they are asked for them."""


class EarlierTrades:
    """The ids of the trades that the window has."""

    def __init__(self, trades: AllTrades, *, window: Window, pairs: Sequence[Pair]) -> None:
        """`pairs`: those of exchanges that number their trades."""
        self._trades = trades
        self._window = window
        self._pairs = pairs

    async def read(self) -> None:
        """Read them once, before the first trade of this boot comes.

        With Redis away nothing is known of them. A trade that is sent again then counts twice, but only if
        its exchange's clock is ahead of ours: older trades than our first question are not new ones.
        """
        if not self._pairs:
            return
        try:
            self._trades.know(await self._window.ids(self._pairs, IDS_READ))
        except StoreAway as error:
            log.warning("earlier trades unknown", error=str(error))
