"""What all connections of a fake venue have in common."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import attrs

from marketflow.adapters.exchange.fake_venues.kinds import KINDS
from marketflow.adapters.exchange.fake_venues.limits import Window
from marketflow.adapters.exchange.fake_venues.trades import Market

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marketflow.adapters.exchange.fake_venues.connection import Connection
    from marketflow.adapters.exchange.fake_venues.faults import Faults
    from marketflow.adapters.exchange.fake_venues.protocol import Kind
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
    noticed_at: float = -math.inf
    """When a maintenance was announced: seconds of Trio's clock."""
    violations: list[str] = attrs.field(factory=list)
    """The rules that clients have broken."""
    count: int = 0
    """The number of connections that were accepted so far."""
    connections: list[Connection] = attrs.field(factory=list)
    """Those that are open."""


def new_floor(
    kind: str, symbols: Sequence[str] | None, seed: int, faults: Faults, clock: Clock, keep: int | None
) -> Floor:
    """The state of a new venue. Arguments as in `FakeVenue`."""
    made = KINDS[kind]()
    spelled = [made.symbol(symbol) for symbol in (made.usual if symbols is None else symbols)]
    return Floor(
        kind=made,
        market=Market(spelled, seed, clock, keep),
        faults=faults,
        clock=clock,
        rng=random.Random(f"{seed}/faults"),  # noqa: S311 - no secret
        attempts=Window(made.rules.attempts),
        attempts_after_notice=Window(made.rules.attempts_after_notice),
        requests=Window(made.rules.requests_of_address),
    )
