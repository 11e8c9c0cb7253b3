"""A session: one connection to an exchange, from the attempt to its end.

```
 session ── waits for an attempt, and opens the connection
  ├─ receiving       messages ──> trades to the workers; answers to the subscriber
  ├─ answering       pongs
  ├─ subscribing     once the exchange has welcomed us
  ├─ pinging         as often as the exchange wants it
  ├─ watching        ends the connection if there is no sign of life
  └─ retiring        when the next session has taken over: says that we leave, and still receives until the
                     exchange has closed the connection
```
`marketflow.adapters.exchange.websocket.state` has its states.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import trio

from marketflow.adapters.exchange.venues.venue import (
    Leave,
    Meaning,
    Notice,
    Rejected,
    Subscribed,
    Trades,
    Welcome,
)
from marketflow.adapters.exchange.websocket.connection import Connection
from marketflow.adapters.exchange.websocket.door import Door
from marketflow.adapters.exchange.websocket.frames import Frames
from marketflow.adapters.exchange.websocket.life import Life, Term
from marketflow.adapters.exchange.websocket.requests import Requests
from marketflow.adapters.exchange.websocket.subscriber import Subscriber
from marketflow.app.ports import OUTAGES, Intake

CLOSE_PATIENCE: Final = 5.0
"""Seconds for which a connection that retires still receives, if the exchange does not close it before."""
WELCOME_PATIENCE: Final = 10.0
"""Seconds for which we wait for the welcome of an exchange that sends one."""
FAREWELL_PATIENCE: Final = 1.0
"""Seconds that the last frame of a connection may take."""


class Session:
    """One connection. `run` makes it and uses it."""

    def __init__(
        self, door: Door, requests: Requests, subscriber: Subscriber, life: Life, term: Term
    ) -> None:
        """Its parts, each for this session only, except for the door."""
        self.subscriber = subscriber
        self.progress = subscriber.progress
        self.life = life
        self.term = term
        self.leads = False
        """Whether it is the one that the exchange's status depends on: not the next one of a renewal."""
        self.failure: Exception | None = None
        """Why it ended, if that was no stop."""
        self._door = door
        self._requests = requests

    async def run(self, intake: Intake[Frames]) -> None:
        """Make the connection and use it, until it ends, or the stop comes, or it has retired.

        The end of the connection is left in `failure`: another session may go on. A bug is raised.
        """
        try:
            await self._run(intake)
        except* OUTAGES as group:
            self.failure = _first(group)
        finally:
            self.progress.go("ended")

    async def ended(self) -> None:
        """Wait until it has ended."""
        await self.progress.until("closed")

    async def ready(self) -> None:
        """Wait until it can replace another one, or has ended."""
        await self.progress.until("live", "closed")

    def retire(self) -> None:
        """Another session has taken over: end this one, without a loss."""
        self.leads = False
        self.progress.go("retire")

    # ---- the connection ----

    async def _run(self, intake: Intake[Frames]) -> None:
        on_attempt = partial(self.progress.go, "attempt")
        enter = partial(self._door.enter, self._requests.venue, on_attempt, lambda: intake.stopping)
        entered = await intake.outside(enter)
        if entered is None:
            return  # the stop
        async with entered.stream:
            self.progress.go("opened")
            self.term.begin()
            self.life.begin(entered.silence)
            try:
                await self._use(entered.connection, entered.ping_every, intake)
            finally:
                with trio.move_on_after(FAREWELL_PATIENCE), suppress(ConnectionError):
                    await entered.connection.close()

    async def _use(self, connection: Connection, ping_every: float | None, intake: Intake[Frames]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.answer)
            nursery.start_soon(self._subscribe, connection, intake)
            nursery.start_soon(self.life.watch)
            nursery.start_soon(self._retire, connection, nursery.cancel_scope)
            if ping_every is not None:
                nursery.start_soon(self._ping, connection, ping_every)
            await intake.forward(partial(self._receive, connection, intake))
            nursery.cancel_scope.cancel()

    async def _subscribe(self, connection: Connection, intake: Intake[Any]) -> None:
        if self._requests.venue.rules.waits_for_welcome:
            with trio.move_on_after(WELCOME_PATIENCE) as limit:
                await self.progress.until("subscribing")
            if limit.cancelled_caught:
                raise TimeoutError(f"no welcome within {WELCOME_PATIENCE:g} s")
        else:
            self._welcomed(intake)
        await self.subscriber.run(connection)

    async def _ping(self, connection: Connection, seconds: float) -> None:
        while True:
            await trio.sleep(seconds)
            if not await connection.send(self._requests.ping):
                return

    async def _retire(self, connection: Connection, scope: trio.CancelScope) -> None:
        await self.progress.until("retiring")
        with trio.move_on_after(CLOSE_PATIENCE):
            await connection.close()
            await trio.sleep_forever()  # `receiving` ends the session before, if the exchange closes it
        scope.cancel()

    # ---- what comes ----

    async def _receive(self, connection: Connection, intake: Intake[Any]) -> Frames | None:
        """The trades that were received together, if there are any."""
        pings = connection.pings
        self.life.listen()
        messages = await connection.receive()
        self.life.pause()
        if messages or (connection.pings > pings and self._requests.venue.rules.pings_show_life):
            self.life.heard(well=self.subscriber.is_well)
        bodies = self._bodies(messages, intake)
        if connection.end is not None and self.leads:
            intake.ended(connection.end)  # the workers may be behind
        if not bodies:
            return None
        now = self._requests.now()
        return Frames(tuple(bodies), self._requests.asked_at or now, now, trio.current_time())

    def _bodies(self, messages: Sequence[bytes], intake: Intake[Any]) -> Sequence[bytes]:
        """The trades among some messages. The others are acted on."""
        if self._requests.venue.only_trades(messages):
            return messages
        read = self._requests.venue.read
        bodies: list[bytes] = []
        for message in messages:
            meaning = read(message)
            if isinstance(meaning, Trades):
                bodies.append(meaning.body)
            else:
                self._act(meaning, intake)
        return bodies

    def _act(self, meaning: Meaning, intake: Intake[Any]) -> None:
        match meaning:
            case Welcome():
                self._welcomed(intake)
            case Subscribed():
                self.subscriber.accepted(meaning)
            case Rejected():
                self.subscriber.rejected(meaning)
            case Notice(text):
                self.subscriber.verdicts.notice(text)
            case Leave(reason):
                if self.term.leave():
                    self.subscriber.verdicts.leaves(reason)

    def _welcomed(self, intake: Intake[Any]) -> None:
        if self.progress.go("welcomed") and self.leads:
            intake.connected()


def _first(error: Exception) -> Exception:
    """The first error in a group."""
    return _first(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error
