"""How long a connection is used: until it is silent for too long, or until it is time for the next one."""

from __future__ import annotations

import math
from typing import Final

import attrs
import trio

from marketflow.adapters.exchange.venues.venue import Rules
from marketflow.app.ports import Entropy
from marketflow.patience import SECOND_LOOK

MARGIN: Final = 0.1
"""The part of a connection's lifetime that we do not use, or half of it: jitter, so that connections which
were made together are not renewed together."""
MOST_MARGIN: Final = 1_800.0
"""Seconds."""


@attrs.define
class Signs:
    """When the exchange has shown life, on any connection of a source: seconds of Trio's clock, or None."""

    heard_at: float | None = None
    """When something came that shows life."""
    well_at: float | None = None
    """The same on a connection that had subscribed to all symbols which the exchange has not refused."""


class Life:
    """Whether the exchange shows life on a connection. Times are in seconds of Trio's clock.

    Only the time in which we listen counts against it: while the workers are behind, nobody does.
    """

    def __init__(self, signs: Signs) -> None:
        """`signs`: of all connections of the source."""
        self._signs = signs
        self.silence = 0.0
        """After so much silence (seconds) the connection is dead; 0 before it is open."""
        self._dead_at = math.inf
        self._left_at: float | None = None
        """Since when nobody listens; None while somebody does."""

    def begin(self, silence: float) -> None:
        """The connection is open. After so much silence it is dead."""
        self.silence = silence
        self.heard()

    def heard(self, *, well: bool = False) -> None:
        """The exchange has shown life. `well`: the connection has its subscriptions."""
        now = self._signs.heard_at = trio.current_time()
        self._dead_at = now + self.silence
        if well:
            self._signs.well_at = now

    def listen(self) -> None:
        """A receive begins."""
        if self._left_at is not None:
            self._dead_at += trio.current_time() - self._left_at
            self._left_at = None

    def pause(self) -> None:
        """The receive has returned."""
        self._left_at = trio.current_time()

    async def watch(self) -> None:
        """Wait for its death.

        Raises:
            TimeoutError: there was no sign of life for too long.
        """
        while True:
            await trio.sleep_until(self._dead_at)
            # If it was our process that stood still, what has come meanwhile is received now.
            await trio.sleep(SECOND_LOOK)
            if self._left_at is None and trio.current_time() >= self._dead_at:
                raise TimeoutError(f"no sign of life for {self.silence:g} s")


class Term:
    """When the next connection is to be made, so that it can take over before this one ends.

    That is some time before the exchange would end it, or at once when the exchange has announced that it
    will. But from one renewal to the next at least the longest pause between two attempts goes by: an
    exchange that announces its leave on each new connection does not cause a storm of them.
    """

    def __init__(self, rules: Rules, entropy: Entropy, renewed_at: float = -math.inf) -> None:
        """`renewed_at`: when the source last renewed its connection, in seconds of Trio's clock."""
        self._earliest = renewed_at + rules.most_pause
        self._most = math.inf
        if rules.lifetime is not None:
            margin = min(rules.lifetime * MARGIN, MOST_MARGIN)
            self._most = rules.lifetime - entropy.uniform(margin / 2, margin)
        self._begun = trio.Event()
        self._begun_at = math.inf
        self._leaving = trio.Event()

    def begin(self) -> None:
        """The connection is open."""
        self._begun.set()
        self._begun_at = trio.current_time()

    def leave(self) -> bool:
        """The exchange has announced that it will end the connection. Returns whether that is new."""
        is_new = not self._leaving.is_set()
        self._leaving.set()
        return is_new

    async def over(self) -> None:
        """Wait until the next connection is to be made."""
        await self._begun.wait()
        with trio.move_on_at(self._begun_at + self._most):
            await self._leaving.wait()
        await trio.sleep_until(max(self._earliest, trio.current_time()))
