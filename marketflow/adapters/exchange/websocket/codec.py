"""The codec of WebSocket sources: from messages with trades to updates. No I/O."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from operator import attrgetter
from typing import Final

import attrs
import msgspec

from marketflow.adapters.exchange.checks import Checks
from marketflow.adapters.exchange.venues.venue import Trade, Venue
from marketflow.adapters.exchange.websocket.frames import Frames
from marketflow.app.ports import Decoded, Identity, Updates
from marketflow.domain.columns import counts
from marketflow.domain.prices import MALFORMED

_BY_TIME: Final = attrgetter("timestamp")
_BY_TIME_AND_ID: Final = attrgetter("timestamp", "id")
_ID: Final = re.compile(r"[!-9;-~]{1,64}")
"""An id that is a text."""
_FIRST_WRONG_ID: Final = 2**63
"""Ids that are numbers are less."""
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
        good = [trade for trade in trades if _is_id(trade.id)]
        malformed += len(trades) - len(good)
        numbered = {type(trade.id) for trade in good} == {int}
        good.sort(key=_BY_TIME_AND_ID if numbered else _BY_TIME)
        rejected = {MALFORMED: malformed} if malformed else {}
        decoded = self.checks.decoded(good, rejected, payload.received_at, told=True, identified=True)
        contiguous = self.venue.contiguous_ids
        others = _others(good, decoded.updates) if contiguous and decoded.rejected else None
        return Decoded(
            received=decoded.received,
            rejected=decoded.rejected,
            updates=decoded.updates,
            ignored_volumes=decoded.ignored_volumes,
            identity=Identity(
                payload.asked_at,
                contiguous=contiguous,
                others=others,
                ignored=_ignored(good, decoded.updates) if decoded.ignored_volumes else None,
            ),
        )


def _is_id(number: int | str) -> bool:
    """Whether a member in Redis can have this id."""
    if isinstance(number, int):
        return 0 <= number < _FIRST_WRONG_ID
    return _ID.fullmatch(number) is not None


def _others(trades: Sequence[Trade], updates: Sequence[Updates]) -> Mapping[str, Sequence[str]]:
    """The ids of the trades of our symbols that are not among the updates, by symbol."""
    accepted, others = _ids_of(updates), defaultdict[str, list[str]](list)
    for trade in trades:
        if trade.symbol != _NO_SYMBOL and (trade.symbol, str(trade.id)) not in accepted:
            others[trade.symbol].append(str(trade.id))
    return others


def _ignored(trades: Sequence[Trade], updates: Sequence[Updates]) -> Mapping[str, Collection[str]]:
    """The ids of the trades among the updates that told a volume which does not count, by symbol."""
    accepted, ignored = _ids_of(updates), defaultdict[str, set[str]](set)
    for trade in trades:
        told = trade.volume is not msgspec.UNSET
        if told and not counts(trade.volume, trade.price) and (trade.symbol, str(trade.id)) in accepted:
            ignored[trade.symbol].add(str(trade.id))
    return ignored


def _ids_of(updates: Sequence[Updates]) -> Collection[tuple[str, str | None]]:
    """With the symbols to which they belong."""
    return {(each.symbol, number) for each in updates for number in each.columns.ids or ()}
