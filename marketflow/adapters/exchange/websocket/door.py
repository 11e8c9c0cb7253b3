"""The way to one exchange: from an attempt, within the limits, to an open connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import attrs
import trio

from marketflow.adapters.exchange.venues.venue import Endpoint, Rules, Venue
from marketflow.adapters.exchange.websocket.budget import Budget
from marketflow.adapters.exchange.websocket.connection import Connection
from marketflow.adapters.exchange.websocket.opening import Opener
from marketflow.adapters.exchange.websocket.turns import Turns
from marketflow.adapters.exchange.websocket.verdicts import MOST_TEXT
from marketflow.app.ports import Entropy

KEPT_SPAN: Final = 60.0
"""Seconds. A limit of messages over a longer span is one of each connection alone, unless the venue counts by
address. If it was kept over connections, a source that has to connect often could be without subscriptions
for the rest of an hour."""


class Entered(NamedTuple):
    """An open connection. The stream is the receiver's to close."""

    stream: trio.abc.Stream
    connection: Connection
    ping_every: float | None
    """Seconds; None: no pings are wanted."""
    silence: float
    """Seconds of silence after which the connection is dead."""


@attrs.frozen(kw_only=True)
class Door:
    """Makes the connections of one source."""

    url: str
    """Where the venue listens, or gives tokens."""
    opener: Opener
    budget: Budget
    """The limits of our address."""
    requests: Turns
    """The limit of messages that we send, for all connections of this source; see `KEPT_SPAN`."""
    entropy: Entropy

    async def enter(
        self, venue: Venue, on_attempt: Callable[[], object], stopping: Callable[[], bool]
    ) -> Entered:
        """A new connection. `on_attempt` is called when the limit allows the attempt.

        Once `stopping` is true, the connection is read without pauses.

        Raises:
            OSError: there is none.
        """
        await self.budget.attempts.turn()
        on_attempt()
        endpoint = await self._endpoint(venue)
        opened = await self.opener.open(endpoint.url)
        connection = Connection(
            opened.stream,
            opened.protocol,
            self._requests_of_connection(venue.rules),
            pongs_take_turns=venue.rules.pongs_are_requests,
            early=opened.early,
            pace=self.opener.pace,
            stopping=stopping,
        )
        return Entered(
            opened.stream,
            connection,
            endpoint.ping_every or venue.rules.ping_every,
            endpoint.silence or venue.rules.silence,
        )

    def _requests_of_connection(self, rules: Rules) -> Turns:
        if self.budget.requests is not None:
            return self.budget.requests
        return self.requests if rules.requests.seconds <= KEPT_SPAN else Turns(rules.requests)

    async def _endpoint(self, venue: Venue) -> Endpoint:
        """Each attempt has a token of its own, since one may have expired."""
        if venue.token_path is None:
            return Endpoint(self.url)
        answer = await self.opener.post(self.url.rstrip("/") + venue.token_path)
        try:
            endpoint = venue.endpoint(answer, f"{self.entropy.getrandbits(64):016x}")
        except ValueError as error:
            reason = str(error)[:MOST_TEXT]
            raise ConnectionError(
                f"no endpoint in the answer to the request for a token: {reason}"
            ) from error
        if self.url.startswith("https:") and not endpoint.url.startswith("wss:"):
            raise ConnectionError("the endpoint in the answer to the request for a token has no TLS")
        return endpoint
