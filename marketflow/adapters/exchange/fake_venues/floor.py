"""What all connections of a fake venue have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    import random

    from marketflow.adapters.exchange.fake_venues.connection import Connection
    from marketflow.adapters.exchange.fake_venues.faults import Faults
    from marketflow.adapters.exchange.fake_venues.limits import Window
    from marketflow.adapters.exchange.fake_venues.protocol import Kind
    from marketflow.adapters.exchange.fake_venues.trades import Market
    from marketflow.app.ports import Clock


@attrs.define(kw_only=True)
class Floor:
    """The state of a venue."""

    kind: Kind
    market: Market
    faults: Faults
    clock: Clock
    rng: random.Random
    """For faults; the trades have their own."""
    attempts: Window
    """The connections of the address."""
    attempts_after_notice: Window
    requests: Window
    """The messages of the address."""
    noticed: bool = False
    """Whether a maintenance has been announced."""
    violations: list[str] = attrs.field(factory=list)
    """The rules that clients have broken."""
    count: int = 0
    """The number of connections that were accepted so far."""
    connections: list[Connection] = attrs.field(factory=list)
    """Those that are open."""
