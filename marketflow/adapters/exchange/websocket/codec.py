"""The codec of WebSocket sources: from messages with trades to updates. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Final

import attrs

from marketflow.adapters.exchange.checks import Checks
from marketflow.adapters.exchange.venues.venue import Trade, Venue
from marketflow.adapters.exchange.websocket.frames import Frames
from marketflow.app.ports import Decoded
from marketflow.domain.prices import MALFORMED

_BY_TIME: Final = attrgetter("timestamp")
_BY_TIME_AND_ID: Final = attrgetter("timestamp", "id")
_NO_SYMBOL: Final = ""
"""The checks reject it. The venue's own spelling might happen to be that of another symbol of ours."""


@attrs.frozen
class VenueDecoder:
    """Implements the port `Decode` for the messages of a venue.

    The trades of a payload are put in the order of their times. Of equal times the greater id is the later
    trade, if ids are numbers; if not, the one that was received later is.
    """

    venue: Venue
    names: Mapping[str, str]
    """Our symbols, by the venue's spelling."""
    checks: Checks

    def __call__(self, payload: Frames, /) -> Decoded:
        """Every trade of the payload, accepted or rejected with a reason."""
        trades: list[Trade] = []
        malformed = 0
        for body in payload.bodies:
            found = self.venue.trades(body)
            trades += found.trades
            malformed += found.malformed
        ours = self.names.get
        for trade in trades:
            trade.symbol = ours(trade.symbol, _NO_SYMBOL)
        numbered = {type(trade.id) for trade in trades} == {int}
        trades.sort(key=_BY_TIME_AND_ID if numbered else _BY_TIME)
        rejected = {MALFORMED: malformed} if malformed else {}
        return self.checks.decoded(trades, rejected, payload.received_at, told=True, identified=True)
