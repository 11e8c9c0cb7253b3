"""The codec of WebSocket sources: from messages with trades to updates. No I/O."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs
import msgspec

from marketflow.adapters.exchange.checks import Checks, Quotes, by_symbol
from marketflow.adapters.exchange.venues.venue import Trade, Venue
from marketflow.adapters.exchange.websocket.frames import Frames
from marketflow.app.ports import Decoded, Identity, Updates
from marketflow.domain.columns import Columns, counts
from marketflow.domain.prices import MALFORMED

_ID: Final = re.compile(r"[!-9;-~]{1,64}")
"""An id that is a text."""
_LONGEST_ID: Final = 64
_FIRST_WRONG_ID: Final = 2**63
"""Ids that are numbers are less."""
_MANY: Final = 8
"""So many numbers become texts faster together than one by one."""
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
        for group in self._named(groups):
            found = _in_order(group)
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
            identity=Identity(
                payload.asked_at,
                contiguous=contiguous,
                others=others,
                ignored=_ignored(good, decoded.updates) if decoded.ignored_volumes else None,
            ),
        )

    def _named(self, groups: Sequence[Quotes]) -> Sequence[Quotes]:
        """The groups by our symbols. All other symbols, of which there may be thousands, are one group."""
        named: list[Quotes] = []
        others: list[Quotes] = []
        for group in groups:
            name = self.names.get(group.symbol, _NO_SYMBOL)
            group.symbol = name
            (others if name == _NO_SYMBOL else named).append(group)
        return [*named, _together(others)] if others else named

    def _one_by_one(self, bodies: Sequence[bytes]) -> tuple[Sequence[Quotes], int]:
        """Trades by symbol, and how many are malformed. A message that is not as usual costs only itself."""
        trades: list[Trade] = []
        malformed = 0
        for body in bodies:
            found = self.venue.trades(body)
            trades += found.trades
            malformed += found.malformed
        return [_quotes(symbol, group) for symbol, group in by_symbol(trades).items()], malformed


def _together(groups: Sequence[Quotes]) -> Quotes:
    """Some groups as one, which has the symbol of the first."""
    return Quotes(
        groups[0].symbol,
        [each for group in groups for each in group.timestamps],
        [each for group in groups for each in group.prices],
        [each for group in groups for each in group.volumes or ()],
        [each for group in groups for each in group.sides],
        [each for group in groups for each in group.ids or ()],
    )


def _quotes(symbol: str, trades: Sequence[Trade]) -> Quotes:
    return Quotes(
        symbol,
        [trade.timestamp for trade in trades],
        [trade.price for trade in trades],
        [trade.volume for trade in trades],
        [trade.side for trade in trades],
        [trade.id for trade in trades],
    )


def _in_order(group: Quotes) -> Quotes:
    """The trades whose ids a member in Redis can have, in the order of time, with ids as texts."""
    times, ids = group.timestamps, group.ids or ()
    kinds = {*map(type, ids)}
    ascending = sorted(ids) if kinds == {int} else ids
    if not _are_ids(ascending, kinds):
        group = group.take([place for place, number in enumerate(ids) if _is_id(number)])
        return _in_order(group) if group.prices else group
    # Usually they are in that order already.
    if times != sorted(times) or ids != ascending:
        keys: Sequence[Any] = list(zip(times, ids, strict=True)) if kinds == {int} else times
        group = group.take(sorted(range(len(times)), key=keys.__getitem__))
        ids = group.ids or ()
    if kinds != {str}:
        group.ids = _texts_of(ids, kinds)
    return group


def _texts_of(ids: Sequence[Any], kinds: set[type]) -> Sequence[str]:
    if len(ids) < _MANY or kinds != {int}:
        return [str(each) for each in ids]
    return msgspec.json.encode(ids)[1:-1].decode().split(",")


def _are_ids(ids: Sequence[Any], kinds: set[type]) -> bool:
    """Whether all are good ids; numbers ascend."""
    if kinds == {int}:
        return bool(ids[0] >= 0 and ids[-1] < _FIRST_WRONG_ID)
    together = "".join(map(str, ids))
    if kinds == {str} and together.isascii() and together.isalnum():
        return max(map(len, ids)) <= _LONGEST_ID and "" not in ids
    return all(map(_is_id, ids))


def _is_id(number: int | str) -> bool:
    if isinstance(number, int):
        return 0 <= number < _FIRST_WRONG_ID
    return _ID.fullmatch(number) is not None


def _others(groups: Sequence[Quotes], updates: Sequence[Updates]) -> Mapping[str, Sequence[str]]:
    """The ids of the trades of our symbols that are not among the updates, by symbol."""
    accepted, others = _ids_of(updates), defaultdict[str, list[str]](list)
    for group in groups:
        for number in map(str, group.ids or ()):
            if group.symbol != _NO_SYMBOL and (group.symbol, number) not in accepted:
                others[group.symbol].append(number)
    return others


def _ignored(groups: Sequence[Quotes], updates: Sequence[Updates]) -> Mapping[str, Collection[int]]:
    """The places of the updates that told a volume which does not count, by symbol."""
    told = {group.symbol: _rows(group.timestamps, group.prices, group.ids, group.volumes) for group in groups}
    return {symbol: {*_ignored_places(columns, told[symbol])} for symbol, columns, _ in updates}


def _rows(*columns: Sequence[Any] | None) -> Iterator[tuple[Any, ...]]:
    return zip(*[column or () for column in columns], strict=True)


def _ignored_places(columns: Columns, told: Iterator[tuple[Any, ...]]) -> Iterator[int]:
    """`told`: time, price, id and volume of the trades. Those that were accepted are in the same order."""
    for place, accepted in enumerate(_rows(columns.timestamps, columns.prices, columns.ids)):
        # An id may occur twice. With an equal time and price both trades are accepted, or both rejected.
        volume = next(volume for *trade, volume in told if tuple(trade) == accepted)
        if volume is not msgspec.UNSET and not counts(volume, accepted[1]):
            yield place


def _ids_of(updates: Sequence[Updates]) -> Collection[tuple[str, str | None]]:
    """With the symbols to which they belong."""
    return {(each.symbol, number) for each in updates for number in each.columns.ids or ()}
