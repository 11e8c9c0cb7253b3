"""What one address may do at a kind of venue."""

from __future__ import annotations

import attrs

from marketflow.adapters.exchange.venues.venue import Rules
from marketflow.adapters.exchange.websocket.turns import Turns


@attrs.frozen
class Budget:
    """The limits that a venue counts by address. All sources of a kind that have one address share them."""

    attempts: Turns
    """Connections that are tried."""
    requests: Turns | None = None
    """Messages that we send on all connections together; None: the venue counts those of each connection."""

    @classmethod
    def of(cls, rules: Rules) -> Budget:
        """A new one, of which nothing is used yet."""
        requests = Turns(rules.requests) if rules.requests_by_address else None
        return cls(Turns(rules.attempts), requests)
