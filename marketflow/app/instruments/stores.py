"""Whether a store is away, and since when."""

from __future__ import annotations

import structlog
import trio

log = structlog.get_logger()


class StoreState:
    """The state of a store. Changes are logged; a new store counts as away until it has answered."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.up = False
        self.error: str | None = None
        """Why it is away; None before the first try and while it is up."""
        self.refusal: str | None = None
        """Why it refused all of the last rows although it answers; None once it has accepted one."""
        self.changed_at = trio.current_time()
        """Seconds of Trio's clock."""

    def answered(self) -> None:
        """Note that the store has answered."""
        if not self.up:
            log.info("store up", store=self.name, away_seconds=self._since_change())
            self.up, self.error, self.changed_at = True, None, trio.current_time()

    def failed(self, error: Exception) -> None:
        """Note that the store failed or did not answer in time."""
        reason = str(error)
        if self.up or self.error is None:
            log.warning("store away", store=self.name, error=reason)
            if self.up:
                self.changed_at = trio.current_time()
        self.up, self.error = False, reason

    def refused(self, reason: str) -> None:
        """Note that it answers but has refused all rows; the fault may be in our statement."""
        if self.refusal is None:
            log.error("all rows refused", store=self.name, error=reason)
        self.refusal = reason

    def took(self) -> None:
        """Note that it has accepted rows."""
        if self.refusal is not None:
            log.info("rows taken again", store=self.name)
        self.refusal = None

    def _since_change(self) -> float:
        return round(trio.current_time() - self.changed_at, 3)
