"""Puts the parts of a session together."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from marketflow.adapters.exchange.venues.venue import Venue
from marketflow.adapters.exchange.websocket.budget import Budget
from marketflow.adapters.exchange.websocket.door import Door
from marketflow.adapters.exchange.websocket.life import Life, Signs, Term
from marketflow.adapters.exchange.websocket.opening import Opener
from marketflow.adapters.exchange.websocket.requests import Requests
from marketflow.adapters.exchange.websocket.session import Session
from marketflow.adapters.exchange.websocket.state import Progress
from marketflow.adapters.exchange.websocket.subscriber import Subscriber
from marketflow.adapters.exchange.websocket.subscriptions import Subscriptions
from marketflow.adapters.exchange.websocket.turns import Turns
from marketflow.adapters.exchange.websocket.verdicts import Verdicts
from marketflow.app.ports import Clock, Entropy


@attrs.frozen(kw_only=True)
class SessionMaker:
    """Makes the sessions of one source."""

    venue: Venue
    names: Mapping[str, str]
    """Our symbols, by the venue's spelling."""
    door: Door
    verdicts: Verdicts
    clock: Clock
    entropy: Entropy
    signs: Signs = attrs.field(factory=Signs)

    def made(self, renewed_at: float) -> Session:
        """A new session. `renewed_at`: when the last renewal began, in seconds of Trio's clock."""
        rules = self.venue.rules
        requests = Requests(self.venue.for_connection(), self.clock)
        subscriber = Subscriber(
            Subscriptions(tuple(self.names), rules.batch, rejects_all=rules.rejects_all),
            requests,
            self.verdicts,
            Progress(),
        )
        life, term = Life(self.signs), Term(rules, self.entropy, renewed_at)
        return Session(self.door, requests, subscriber, life, term)


def maker_of(
    exchange: str,
    venue: Venue,
    names: Mapping[str, str],
    url: str | None,
    *,
    opener: Opener,
    budget: Budget,
    clock: Clock,
    entropy: Entropy,
) -> SessionMaker:
    """What makes the sessions of a source. The arguments are those of `WebSocketSource`."""
    return SessionMaker(
        venue=venue,
        names=names,
        door=Door(
            url=venue.url if url is None else url,
            opener=opener,
            budget=budget,
            requests=Turns(venue.rules.requests),
            entropy=entropy,
        ),
        verdicts=Verdicts(exchange, names),
        clock=clock,
        entropy=entropy,
    )
