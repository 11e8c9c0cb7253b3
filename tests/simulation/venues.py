"""Simulated venues: the source of an exchange whose trades have ids, and the protocol that it speaks.

A message is a line with one trade. The product's codec of venues decodes it, with the protocol below.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final

import msgspec
import trio

from marketflow.adapters.exchange.checks import Checks
from marketflow.adapters.exchange.reading import LineReader
from marketflow.adapters.exchange.venues.venue import ALIVE, Found, Meaning, Trade, Venue
from marketflow.adapters.exchange.websocket.codec import VenueDecoder
from marketflow.adapters.exchange.websocket.frames import Frames
from marketflow.app.ports import Intake
from tests.simulation.exchanges import SimulatedExchange, SimulatedSource, finite
from tests.simulation.trades import Kind, spelled
from tests.simulation.volumes import no_number

SILENCE: Final = 10.0


class Protocol(Venue):
    """What the messages of a simulated venue mean."""

    kind = "simulated"
    url = ""

    def subscribe(self, symbols: Sequence[str], request: int, now: int) -> bytes:  # noqa: ARG002
        """Who connects gets everything."""
        return b""

    def read(self, frame: bytes) -> Meaning:  # noqa: ARG002
        """Each message has a trade."""
        return ALIVE

    def trades(self, body: bytes) -> Found:
        """The trade of a message."""
        try:
            fields = json.loads(body, parse_constant=no_number)
            symbol, price, time, number = (fields[key] for key in ("symbol", "price", "timestamp", "id"))
        except (ValueError, TypeError, KeyError):
            return Found((), 1)
        if not isinstance(symbol, str) or type(time) is not int or not finite(price):
            return Found((), 1)
        if type(number) not in (int, str):
            return Found((), 1)
        volume = fields.get("volume", msgspec.UNSET)
        return Found([Trade(symbol, float(price), time, volume, fields.get("side"), number)])


class Contiguous(Protocol):
    """The same, where ids are whole numbers without gaps."""

    contiguous_ids = True


def venue_decoder(kind: Kind, symbols: Sequence[str], checks: Checks) -> VenueDecoder:
    """The product's codec for the messages of an exchange with ids of that kind."""
    venue = Contiguous() if kind == "contiguous" else Protocol()
    return VenueDecoder(venue, {spelled(symbol): symbol for symbol in symbols}, checks)


class SimulatedVenue(SimulatedSource):
    """Fills the port VenueSource for one process. Notes what it receives together."""

    kind = "simulated"
    activity = "live"
    subscribed = True
    rejected_symbols: Final[Mapping[str, str]] = {}

    def __init__(
        self,
        exchange: SimulatedExchange,
        note: Callable[[str, Sequence[bytes], int], None],
        *,
        symbols: Sequence[str],
        pauses: tuple[float, float],
        reader: LineReader,
        **process: Any,
    ) -> None:
        """As for SimulatedSource. `note` is called with messages and the time (Unix ms) of the question."""
        self._messages: list[bytes] = []
        """What has come and was not sent on."""
        super().__init__(exchange, lambda _, line: self._messages.append(line), reader=reader, **process)
        self._note_all = note
        self.symbols = {symbol: spelled(symbol) for symbol in symbols}
        self.pauses = pauses
        self.silence = SILENCE
        self.heard_at: float | None = None
        self.well_at: float | None = None
        self._clock, self._pace = reader.clock, reader.pace

    async def _read(self, intake: Intake[Any]) -> None:
        async with AsyncExitStack() as stack:
            connection = await intake.outside(partial(stack.enter_async_context, self._connect()))
            if connection is None or intake.stopping:
                return
            self._messages.clear()
            self.heard_at = self.well_at = trio.current_time()
            asked_at = self._clock.now()
            intake.connected()
            paced = self._pace.paced(connection, lambda: intake.stopping)

            async def receive() -> Frames | None:
                data = await paced.receive()
                if not data:
                    raise ConnectionError("closed by the exchange")
                self.heard_at = self.well_at = trio.current_time()
                bodies = tuple(line for line in self._messages if line.strip(b" \t\r"))
                self._messages.clear()
                if not bodies:
                    return None
                self._note_all(self.exchange, bodies, asked_at)
                return Frames(bodies, asked_at, self._clock.now(), trio.current_time())

            await intake.forward(receive)
