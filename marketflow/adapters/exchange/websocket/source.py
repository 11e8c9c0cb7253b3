"""The source of an exchange that sends WebSocket messages.

```
 run
  ├─ renewing        waits until a session ends, or until it is time for the next one
  ├─ session         the connection that is used
  └─ session         during a renewal: the next one, which takes over once its subscriptions are decided
```
Exchanges end connections after some time, mostly a day. Before that the next one is made. While both live
both give trades, and the same trade twice is removed later, by its id. So a renewal leaves no gap. If the
next connection cannot be made, the present one goes on as long as it lives, and there are further attempts
with pauses.

If the present connection ends before the next one is ready, the next one takes over at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import trio
from trio_util import wait_any

from marketflow.adapters.exchange.venues.venue import Venue
from marketflow.adapters.exchange.websocket.budget import Budget
from marketflow.adapters.exchange.websocket.frames import Frames
from marketflow.adapters.exchange.websocket.making import maker_of
from marketflow.adapters.exchange.websocket.opening import Opener
from marketflow.adapters.exchange.websocket.session import Session
from marketflow.app.ingest.backoff import Backoff
from marketflow.app.ports import Clock, Decode, Entropy, Intake


class WebSocketSource:
    """Implements the port `Source`: the trades of an exchange's symbols."""

    def __init__(
        self,
        exchange: str,
        venue: Venue,
        names: Mapping[str, str],
        decode: Decode[Frames],
        *,
        opener: Opener,
        budget: Budget,
        clock: Clock,
        entropy: Entropy,
        url: str | None = None,
    ) -> None:
        """What it reads, and how.

        Args:
            exchange: its name.
            venue: what kind of exchange it is.
            names: our symbols, by the venue's spelling.
            decode: its codec.
            opener: makes connections.
            budget: what our address may do, one for all its sources of this kind of venue.
            clock: the wall clock.
            entropy: for jitter.
            url: in place of the venue's own.

        Raises:
            ValueError: the venue does not give so many symbols on one connection.
        """
        if len(names) > venue.rules.symbols:
            most = venue.rules.symbols
            raise ValueError(f"{venue.kind} gives at most {most} symbols on a connection, not {len(names)}")
        self.exchange = exchange
        self.decode = decode
        self._maker = maker_of(
            exchange, venue, names, url, opener=opener, budget=budget, clock=clock, entropy=entropy
        )
        self._present: Session | None = None
        self._next: Session | None = None
        """During a renewal."""
        self._renewed_at = -math.inf
        """When the last renewal began, in seconds of Trio's clock."""

    # ---- for the feed, and for health ----

    @property
    def kind(self) -> str:
        """The venue's kind in the configuration."""
        return self._maker.venue.kind

    @property
    def symbols(self) -> Mapping[str, str]:
        """Our symbols that it asks for, with the venue's spelling."""
        return {symbol: name for name, symbol in self._maker.names.items()}

    @property
    def pauses(self) -> tuple[float, float]:
        """The shortest and the longest pause before it is run again, in seconds."""
        rules = self._maker.venue.rules
        return rules.least_pause, rules.most_pause

    @property
    def silence(self) -> float:
        """A connection on which nothing came for so long is dead, in seconds."""
        told = 0.0 if self._present is None else self._present.life.silence
        return told or self._maker.venue.rules.silence

    @property
    def rejected_symbols(self) -> Mapping[str, str]:
        """Our symbols that the exchange rejects, with its reasons."""
        return self._maker.verdicts.rejected

    @property
    def heard_at(self) -> float | None:
        """When the exchange last showed life, in seconds of Trio's clock; None if it never did."""
        return self._maker.signs.heard_at

    @property
    def well_at(self) -> float | None:
        """The same while a connection had its subscriptions."""
        return self._maker.signs.well_at

    @property
    def subscribed(self) -> bool:
        """Whether the venue has decided on all subscriptions of the present connection."""
        return self._present is not None and self._present.progress.state == "live"

    @property
    def activity(self) -> str:
        """What it does, in few words."""
        if self._next is not None:
            return "renewing the connection"
        state = "closed" if self._present is None else self._present.progress.state
        if state == "subscribing" and self._present is not None:
            decided = self._present.subscriber.subscriptions.decided
            return f"subscribing {decided} of {len(self._maker.names)}"
        waiting = {"waiting": "waiting for an attempt", "closed": "waiting for an attempt"}
        return waiting.get(state, "connecting" if state in {"opening", "greeting"} else "live")

    # ---- the connections ----

    async def run(self, intake: Intake[Frames]) -> None:
        """Connect, and send what is received, until the stop, or until there is no connection any more.

        Raises:
            OSError: no connection could be made, or it ended.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._present = self._begun(nursery, intake)
                self._present.leads = True
                while not intake.stopping:
                    session = self._present
                    await intake.outside(partial(_first_of, session.ended, session.term.over))
                    if session.progress.has_ended and not intake.stopping:
                        raise session.failure or ConnectionError("the connection has ended")
                    await self._renew(nursery, intake, session)
        finally:
            self._next = None

    async def _renew(self, nursery: trio.Nursery, intake: Intake[Frames], present: Session) -> None:
        """Replace the present session, or at least try to as long as it lives."""
        least, most = self.pauses
        backoff = Backoff(least, most, self._maker.entropy, floor=least)
        while not (intake.stopping or present.progress.has_ended):
            self._renewed_at = trio.current_time()
            following = self._next = self._begun(nursery, intake)
            await intake.outside(partial(_first_of, following.ready, present.ended))
            if intake.stopping:
                return
            if present.progress.has_ended:
                self._take_over(intake, present, following)
                return
            if not following.progress.has_ended:
                self._lead(following)
                present.retire()
                self._maker.verdicts.renewed()
                return
            self._next = None
            self._maker.verdicts.not_renewed(following.failure or ConnectionError("the connection has ended"))
            pause = partial(trio.sleep, backoff.next())
            await intake.outside(partial(_first_of, pause, present.ended))

    def _take_over(self, intake: Intake[Any], present: Session, following: Session) -> None:
        """The present session has ended while the next one is being made."""
        intake.ended(present.failure or ConnectionError("the connection has ended"))
        if following.progress.is_connected:
            intake.connected()
        self._lead(following)

    def _lead(self, following: Session) -> None:
        following.leads = True
        self._present, self._next = following, None

    def _begun(self, nursery: trio.Nursery, intake: Intake[Frames]) -> Session:
        session = self._maker.made(self._renewed_at)
        nursery.start_soon(session.run, intake)
        return session


async def _first_of(*waits: Any) -> None:
    """Wait until the first of them ends."""
    await wait_any(*waits)
