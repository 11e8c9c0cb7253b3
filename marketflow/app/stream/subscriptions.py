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
from trio_util import move_on_when

from marketflow.app.answers import PriceEvent
from marketflow.app.interface import Names, only
from marketflow.app.knowledge import StreamedBars
from marketflow.app.stream.delivery import Delivery
from marketflow.app.stream.newest_events import Filter, NewestEvents
from marketflow.app.stream.places import Places
from marketflow.domain.prices import Pair

TICK: Final = 0.01
"""Seconds between two updates of the events from the known bars."""

LONGEST_TICK: Final = 1.0
"""Seconds between two more such updates, whether updates arrive or not."""

HEARTBEAT: Final = 15.0
"""Seconds without an event after which a client gets a heartbeat."""

_NO_EVENT: Final = -1
"""Less than the id of any event."""


@attrs.frozen
class Wanted:
    """Which events a client wants."""

    symbols: Names
    named: Names
    """The exchanges that it has named; None: those of the current mode."""
    of_mode: Callable[[], Collection[str]]
    """The exchanges of the current mode. Called for each send, since it may have changed."""

    @property
    def filter(self) -> Filter:
        """The filter whose events wake the client. One that has named several is woken by all."""
        return only(self.named), only(self.symbols)

    @property
    def exchanges(self) -> Collection[str]:
        """Those wanted at this moment."""
        return self.of_mode() if self.named is None else self.named

    def covers(self, pair: Pair) -> bool:
        """Whether events of the pair are wanted at this moment."""
        exchange, symbol = pair
        return exchange in self.exchanges and (self.symbols is None or symbol in self.symbols)

    def among(self, events: Sequence[PriceEvent]) -> Iterator[PriceEvent]:
        """The wanted ones of these events."""
        exchanges, symbols = self.exchanges, self.symbols
        for event in events:
            latest = event.latest
            if latest.exchange in exchanges and (symbols is None or latest.symbol in symbols):
                yield event


class Subscription:
    """One client: which events it wants, and the last one that it got. Only one task may use it."""

    def __init__(self, wanted: Wanted, delivery: Delivery, *, since: int | None) -> None:
        """`since` is the id of the last event that the client got before; None if there was none."""
        self._wanted = wanted
        self._delivery = delivery
        self._since = since
        self._cursor: int | None = None
        """The id of the last event that it got; None before the first `receive`."""

    async def receive(self) -> Sequence[PriceEvent] | None:
        """Wait for newer events: at most one of each pair, with growing ids.

        Empty if there were none for the time of a heartbeat. None, at once, when the service is stopping.
        """
        delivery = self._delivery
        cursor = await self._begin() if self._cursor is None else self._cursor
        self._cursor = cursor
        while True:
            with trio.move_on_after(delivery.heartbeat) as quiet:
                while not delivery.ended.is_set() and next(self._newer_than(cursor), None) is None:
                    await delivery.newest.wait_changed(self._wanted.filter)
            if quiet.cancelled_caught:
                return ()
            await delivery.turns.wait()
            if delivery.ended.is_set():
                return None
            # While it waited for its turn there may be newer events or, if the mode changed, none.
            if events := list(self._newer_than(cursor)):
                self._cursor = events[-1].id
                delivery.turns.charge(len(events))
                return events

    async def _begin(self) -> int:
        """Bring the wanted events up to date, and return the cursor from which the client goes on.

        While there are no clients, nobody keeps the events up to date. A client must begin with the newest.
        """
        async with move_on_when(self._delivery.ended.wait):
            await self._delivery.newest.catch_up(self._wanted.covers)
        if self._since is None or self._since > self._delivery.newest.last_id:
            return _NO_EVENT  # No id was given, or no event ever had it.
        return self._since

    def _newer_than(self, cursor: int) -> Iterator[PriceEvent]:
        return self._wanted.among(self._delivery.newest.after(cursor))


class PriceStream:
    """Implements the port StreamQuestions: keeps the events up to date while there are clients."""

    def __init__(
        self,
        *,
        bars: StreamedBars,
        pairs: Sequence[Pair],
        exchanges_of_mode: Callable[[], Collection[str]],
        check: Callable[[Names, Names], object],
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
        self._exchanges_of_mode = exchanges_of_mode
        self._check = check
        self._places = Places(most_clients)
        self._delivery = Delivery(NewestEvents(bars, pairs), heartbeat=heartbeat)

    @property
    def clients(self) -> int:
        """The current number of clients."""
        return self._places.taken

    async def run(self, stopping: trio.Event) -> None:
        """Keep the events up to date until `stopping` is set; then all streams end."""
        try:
            async with move_on_when(stopping.wait):
                while True:
                    await self._places.wait_taken()
                    async with move_on_when(self._places.wait_free), trio.open_nursery() as nursery:
                        nursery.start_soon(self._tell_updates)
                        nursery.start_soon(self._tell_late_reads)
        finally:
            self._delivery.end()

    async def _tell_updates(self) -> None:
        """Tell updates as they arrive, until cancelled."""
        arrived = 0
        while True:
            arrived = await self._bars.wait_for_updates(arrived)
            self._delivery.newest.refresh()
            await trio.sleep(TICK)

    async def _tell_late_reads(self) -> None:
        """Tell what wakes nobody, until cancelled: bars of earlier boots may be read at any time."""
        while True:
            await trio.sleep(LONGEST_TICK)
            self._delivery.newest.refresh()

    @contextmanager
    def subscribed(
        self, symbols: Names, exchanges: Names, since: int | None = None
    ) -> Iterator[Subscription]:
        """A client for the length of the block. Its first events are the newest of each pair it asks for.

        Args:
            symbols: None for all.
            exchanges: None for all of the current mode, also after a switch.
            since: the id of the last event that the client got; None if there was none.

        Raises:
            UnknownSymbol, UnknownExchange, TooManyClients
        """
        self._check(symbols, exchanges)
        wanted = Wanted(symbols, exchanges, self._exchanges_of_mode)
        with self._places.take():
            yield Subscription(wanted, self._delivery, since=since)
