"""The spool of a term: PostgreSQL hands it to the next owner; a disk keeps what PostgreSQL does not take."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
import trio

from marketflow.app.share.spooling import Spool, SpooledBar, SpoolFailed

log = structlog.get_logger()


class HandedSpool:
    """Fills the port Spool with two others.

    Bars that are in both, since one could not be removed, are the same bars: they count once.
    """

    def __init__(self, exchange: str, *, handed: Spool, disk: Spool) -> None:
        """`handed` is read by the next owner of the exchange; `disk` by this node alone."""
        self._exchange = exchange
        self._handed = handed
        self._disk = disk

    async def load(self) -> Sequence[SpooledBar]:
        """What earlier terms have left, on any node in `handed`, and on this node's disk."""
        return [*await self._handed.load(), *await self._disk.load()]

    async def save(self, bars: Sequence[SpooledBar], within: float = 5.0) -> None:
        """Replace what was loaded and saved; see the port. The disk has half of the time at least."""
        ends = trio.current_time() + within
        failure: SpoolFailed | None = None
        try:
            await self._handed.save(bars, within / 2)
        except SpoolFailed as error:
            failure = error
        await self._disk.save(bars if failure else [], max(0.0, ends - trio.current_time()))
        if failure is None:
            return
        if bars:
            log.error(
                "spooled bars not handed over",
                exchange=self._exchange,
                bars=len(bars),
                error=failure.reason,
            )
        else:
            log.warning("spool cannot be removed", path=failure.place, error=failure.reason)
