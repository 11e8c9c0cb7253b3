"""The live stream: the newest update of each pair to many clients, each as fast as it can take them.

There are no queues for clients, and the data path does not know about clients:

- There is one event for each pair, of its newest update; the ids of events grow. While there are clients
  the events are brought up to date from the known bars, at most once a tick.
- A client is a cursor: the id of the last event that it got. When it is ready for more it gets the newer
  events, at most one of each pair. So a slow client skips updates, and costs no memory.
- Sends take turns. A client that is alone gets every tick. Many clients share the turns evenly, and all sends
  together take only a bounded part of the thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import attrs
import trio
from trio_util import AsyncValue, move_on_when

from marketflow.app.answers import PriceEvent, TooManyClients
from marketflow.app.knowledge import KnownBars
from marketflow.app.stream.newest_events import NewestEvents
from marketflow.app.stream.turns import Turns
from marketflow.domain.prices import Pair

TICK: Final = 0.01
"""Seconds between two updates of the events from the known bars."""

LONGEST_TICK: Final = 1.0
"""The same while no update arrives. Bars of earlier boots may have been read, which wakes nobody."""

HEARTBEAT: Final = 15.0
"""Seconds without an event after which a client gets a heartbeat."""


@attrs.define(eq=False)
class Subscription:
    """One client: its filter, and the last event that it got. Only one task may use it."""

    exchange: str | None
    symbol: str | None
    exchanges: Callable[[], Collection[str]]
    """Called for each send: the mode may have changed."""
    cursor: int
    newest: NewestEvents
    turns: Turns
    heartbeat: float
    ended: trio.Event

    async def receive(self) -> Sequence[PriceEvent] | None:
        """Wait for newer events: at most one of each pair, with growing ids.

        Empty if there were none for the time of a heartbeat. None, at once, when the service is stopping.
        """
        while True:
            with trio.move_on_after(self.heartbeat) as quiet:
                while not self.ended.is_set() and next(self._new(), None) is None:
                    await self.newest.wait_changed((self.exchange, self.symbol))
            if quiet.cancelled_caught:
                return ()
            await self.turns.wait()
            if self.ended.is_set():
                return None
            # While it waited for its turn there may be newer events or, if the mode changed, none.
            if events := list(self._new()):
                self.cursor = events[-1].id
                self.turns.charge(len(events))
                return events

    def _new(self) -> Iterator[PriceEvent]:
        exchanges, symbol = self.exchanges(), self.symbol
        for event in self.newest.after(self.cursor):
            if event.latest.exchange in exchanges and symbol in (None, event.latest.symbol):
                yield event


class PriceStream:
    """Implements the port StreamQuestions with the newest events, turns, and a count of clients."""

    def __init__(
        self,
        *,
        bars: KnownBars,
        pairs: Sequence[Pair],
        exchanges_of_mode: Callable[[], Collection[str]],
        check: Callable[[str | None, str | None], object],
        most_clients: int,
        heartbeat: float = HEARTBEAT,
    ) -> None:
        """There are no clients yet.

        Args:
            bars: has the newest update of each pair.
            pairs: the pairs of both modes.
            exchanges_of_mode: returns the exchanges of the current mode.
            check: raises UnknownSymbol or UnknownExchange for a name that is not configured.
            most_clients: the limit of clients at a time.
            heartbeat: seconds without an event after which `receive` returns without one.
        """
        self._bars = bars
        self._newest = NewestEvents(bars, pairs)
        self._exchanges_of_mode = exchanges_of_mode
        self._check = check
        self._most_clients = most_clients
        self._heartbeat = heartbeat
        self._clients = AsyncValue[int](0)
        self._ended = trio.Event()
        self._turns = Turns(self._ended)

    @property
    def clients(self) -> int:
        """The current number of clients."""
        clients: int = self._clients.value
        return clients

    async def run(self, stopping: trio.Event) -> None:
        """Keep the events up to date until `stopping` is set; then all streams end."""
        sequence = 0
        try:
            async with move_on_when(stopping.wait):
                while True:
                    await self._clients.wait_value(lambda clients: clients > 0)
                    with trio.move_on_after(LONGEST_TICK):
                        sequence = await self._bars.wait_for_updates(sequence)
                    self._newest.refresh()
                    await trio.sleep(TICK)
        finally:
            self._ended.set()
            self._newest.end()

    @contextmanager
    def subscribed(
        self, symbol: str | None, exchange: str | None, since: int | None = None
    ) -> Iterator[Subscription]:
        """A client for the length of the block. Its first events are the newest of each pair it asks for.

        Args:
            symbol: None for all.
            exchange: None for all of the current mode, also after a switch.
            since: the id of the last event that the client got; None if there was none.

        Raises:
            UnknownSymbol, UnknownExchange, TooManyClients
        """
        self._check(symbol, exchange)
        if self._clients.value >= self._most_clients:
            raise TooManyClients(self._most_clients)
        self._newest.refresh()
        if since is None or since > self._newest.last_id:  # there was no event with such an id
            since = -1
        self._clients.value += 1
        try:
            yield Subscription(
                exchange=exchange,
                symbol=symbol,
                exchanges=self._exchanges_of_mode if exchange is None else lambda: (exchange,),
                cursor=since,
                newest=self._newest,
                turns=self._turns,
                heartbeat=self._heartbeat,
                ended=self._ended,
            )
        finally:
            self._clients.value -= 1
