"""The codec of WebSocket sources: from messages with trades to updates. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import attrs

from marketflow.adapters.exchange.checks import Checks, Quotes, by_symbol, texts_of
from marketflow.adapters.exchange.venues.venue import Trade, Venue
from marketflow.adapters.exchange.websocket.frames import Frames
from marketflow.app.ports import Decoded, Identity, Updates
from marketflow.domain.prices import MALFORMED

_ID: Final = re.compile(r"[!-9;-~]{1,64}")
"""An id that is a text."""
_LONGEST_ID: Final = 64
_FIRST_WRONG_ID: Final = 2**63
"""Ids that are numbers are less."""
_NO_SYMBOL: Final = ""
"""The checks reject it. The venue's own spelling might happen to be that of another symbol of ours."""


@attrs.frozen
class VenueDecoder:
    """Implements the port `Decode` for the messages of a venue.

    The trades of a symbol in a payload are put in the order of their times. Of equal times the greater id is
    the later trade, if ids are numbers; if not, the one that was received later is.
    """

    venue: Venue
    names: Mapping[str, str]
    """Our symbols, by the venue's spelling."""
    checks: Checks

    def __call__(self, payload: Frames, /) -> Decoded:
        """Every trade of the payload, accepted or rejected with a reason."""
        malformed = 0
        groups = self.venue.together(payload.bodies)
        if groups is None:
            groups, malformed = self._one_by_one(payload.bodies)
        good: list[Quotes] = []
        for group in groups:
            found = _ordered(_with_good_ids(group), self.names.get(group.symbol, _NO_SYMBOL))
            malformed += len(group.prices) - len(found.prices)
            if found.prices:
                good.append(found)
        rejected = {MALFORMED: malformed} if malformed else {}
        decoded = self.checks.grouped(good, rejected, payload.received_at, ascending=True)
        contiguous = self.venue.contiguous_ids
        others = _others(good, decoded.updates) if contiguous and decoded.rejected else None
        return Decoded(
            received=decoded.received,
            rejected=decoded.rejected,
            updates=decoded.updates,
            ignored_volumes=decoded.ignored_volumes,
            identity=Identity(payload.asked_at, contiguous=contiguous, others=others),
        )

    def _one_by_one(self, bodies: Sequence[bytes]) -> tuple[Sequence[Quotes], int]:
        """Trades by symbol, and how many are malformed. A message that is not as usual costs only itself."""
        trades: list[Trade] = []
        malformed = 0
        for body in bodies:
            found = self.venue.trades(body)
            trades += found.trades
            malformed += found.malformed
        return [_quotes(symbol, group) for symbol, group in by_symbol(trades).items()], malformed


def _quotes(symbol: str, trades: Sequence[Trade]) -> Quotes:
    return Quotes(
        symbol,
        [trade.timestamp for trade in trades],
        [trade.price for trade in trades],
        [trade.volume for trade in trades],
        [trade.side for trade in trades],
        [trade.id for trade in trades],
    )


def _with_good_ids(group: Quotes) -> Quotes:
    """Those whose ids a member in Redis can have."""
    ids = group.ids or ()
    if _are_ids(ids):
        return group
    return group.take([place for place, number in enumerate(ids) if _is_id(number)])


def _are_ids(ids: Sequence[int | str]) -> bool:
    """Whether all are; False may also mean that they have to be looked at one by one."""
    kinds = {*map(type, ids)}
    if kinds == {int}:
        numbers = cast("Sequence[int]", ids)
        return min(numbers) >= 0 and max(numbers) < _FIRST_WRONG_ID
    if kinds == {str}:
        all_ids, lengths = "".join(cast("Sequence[str]", ids)), {*map(len, cast("Sequence[str]", ids))}
        return all_ids.isascii() and all_ids.isalnum() and min(lengths) > 0 and max(lengths) <= _LONGEST_ID
    return False


def _is_id(number: int | str) -> bool:
    if isinstance(number, int):
        return 0 <= number < _FIRST_WRONG_ID
    return _ID.fullmatch(number) is not None


def _ordered(group: Quotes, symbol: str) -> Quotes:
    """The same with another symbol, in the order of time."""
    times, ids = group.timestamps, group.ids or ()
    numbered = {*map(type, ids)} == {int}
    # Usually they are in that order already.
    if times != sorted(times) or (numbered and ids != sorted(ids)):
        keys: Sequence[Any] = list(zip(times, ids, strict=True)) if numbered else times
        group = group.take(sorted(range(len(times)), key=keys.__getitem__))
    return Quotes(symbol, *group[1:-1], texts_of(group.ids or ()))


def _others(groups: Sequence[Quotes], updates: Sequence[Updates]) -> Mapping[str, Sequence[str]]:
    """The ids of the trades that are not among the updates, by symbol."""
    accepted = {(each.symbol, number) for each in updates for number in each.columns.ids or ()}
    others: dict[str, list[str]] = {}
    for group in groups:
        for number in map(str, group.ids or ()):
            if (group.symbol, number) not in accepted:
                others.setdefault(group.symbol, []).append(number)
    return others
