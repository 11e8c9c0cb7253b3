"""Faults to order of a fake venue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from marketflow.adapters.exchange.fake_venues.faults import Faults, Mute, Spoil
    from marketflow.adapters.exchange.fake_venues.floor import Floor


class Orders:
    """The faults of a venue. Each method takes effect at once."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor

    @property
    def faults(self) -> Faults:
        """All faults that are states of the venue. They may be changed."""
        return self._floor.faults

    def mute(self, mute: Mute = "messages") -> None:
        """Send nothing but pongs from now on, or nothing at all. What is made meanwhile is not sent later."""
        self._floor.faults.mute = mute

    def unmute(self) -> None:
        """Send again."""
        self._floor.faults.mute = "no"

    def refuse(self) -> None:
        """Refuse new connections with 429."""
        self._floor.faults.refused = 1.0

    def accept(self) -> None:
        """Accept new connections again."""
        self._floor.faults.refused = 0.0

    def spoil(self, *spoils: Spoil) -> None:
        """Spoil the next trades, one after the other."""
        self._floor.faults.ordered.extend(spoils)

    def delist(self, symbol: str) -> None:
        """Take a pair off the venue: it has no more trades, and subscriptions to it are rejected."""
        self._floor.market.delist(self._floor.kind.symbol(symbol))

    def cut(self, code: int = 1001, reason: str = "") -> None:
        """Close all connections with this code."""
        for connection in list(self._floor.connections):
            connection.close(code, reason)

    def reset(self) -> None:
        """End all connections by a reset, without a close."""
        for connection in list(self._floor.connections):
            connection.outbox.dropped.cancel()

    def maintain(self, after: float = 5.0) -> None:
        """Announce a maintenance if the venue does so, and cut all connections after so many seconds."""
        floor = self._floor
        floor.noticed_at = trio.current_time()
        notice = floor.kind.notice(floor.clock.now() * 1_000_000)
        for connection in list(floor.connections):
            if notice is not None:
                connection.send(notice)
            connection.pulse.cut_at = trio.current_time() + after
            connection.pulse.announced.set()
