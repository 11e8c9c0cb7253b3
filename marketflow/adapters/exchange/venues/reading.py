"""Messages with trades, as venues declare them. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from math import inf, isfinite
from operator import attrgetter, itemgetter
from types import MappingProxyType
from typing import Any, Final, Generic, Literal, TypeVar

import msgspec
from msgspec import UNSET

from marketflow.adapters.exchange.checks import Quotes, by_symbol
from marketflow.adapters.exchange.venues.members import UNREADABLE
from marketflow.adapters.exchange.venues.venue import Found, Trade

Item = TypeVar("Item")
"""The type of a message's trades."""
Volume = TypeVar("Volume")
Side = TypeVar("Side")
Id = TypeVar("Id")

MOST_ONE_BY_ONE: Final = 2_000
"""Trades of a message that are read one by one, which takes some 15 us each. If more are not as usual, all
others of their blocks count as malformed."""
BLOCK: Final = 20
"""Trades that are read together, if a message has one that is not as usual."""
_FIRST, _LAST = itemgetter(0), itemgetter(-1)
_BRACKETS: Final = (({ord("{")}, {ord("}")}), ({ord("[")}, {ord("]")}))
TAKERS: Final[Mapping[Any, str]] = MappingProxyType({"buy": "buy", "sell": "sell"})
"""For a venue that names the taker's side, as we do."""


class Data(msgspec.Struct, Generic[Item], gc=False):
    """A message that has its trades in the field `data`, as most venues' have."""

    data: Item


class TradeMessages:
    """Decodes messages with trades: many at once, or one by one if one of them is not as usual.

    A venue declares its trades as a Struct with the fields of `Trade`, which have the venue's names in JSON.
    A trade counts without a volume or a side that cannot be read, and its id may be any text. So the types of
    these three fields are parameters.
    """

    def __init__(
        self,
        item: Any,
        *,
        message: Any = None,
        field: str = "data",
        several: bool = False,
        items: Callable[[Sequence[Any]], Sequence[Any]] | None = None,
        times: Callable[[Sequence[Any]], Sequence[int]] = list,
        sides: Any = Literal["buy", "sell"],
        takers: Mapping[Any, str] = TAKERS,
        ids: Any = int,
    ) -> None:
        """What a venue's messages are.

        Args:
            item: a trade; a Struct with the parameters `Volume`, `Side` and `Id`.
            message: a Struct whose parameter is the type of what has its trades; None: a message is a trade.
            field: the field of the message that has its trade.
            several: whether it has a list of them.
            items: the trades of some messages, if more has to be done for them than to take that field. It
                must not depend on the types of volumes and sides.
            times: their times as Unix ms. It may raise a ValueError.
            sides: the type of sides.
            takers: the taker's side by the venue's.
            ids: how it usually writes ids.
        """
        # Not strict: venues write numbers as text.
        usual = item[float, sides, ids]
        within = usual if message is None else message[list[usual] if several else usual]  # type: ignore[valid-type]
        self._usual = msgspec.json.Decoder(within, strict=False)
        self._items_alone = msgspec.json.Decoder(list[usual], strict=False)  # type: ignore[valid-type]
        raw = list[msgspec.Raw] if several else msgspec.Raw
        self._raw = None if message is None else (msgspec.json.Decoder(message[raw]), field)
        """Reads a message without its trades, which are in this field."""
        self._unusual = tuple(
            msgspec.json.Decoder(item[msgspec.Raw, msgspec.Raw, each], strict=False) for each in (ids, str)
        )
        self._items = items or _items_of(None if message is None else field, several=several)
        self._times = times
        self._takers = takers

    def together(self, bodies: Sequence[bytes]) -> Sequence[Quotes] | None:
        """The trades of some messages by symbol, each in their order; None if one of them is not as usual."""
        if not _are_apart(bodies):
            return None
        try:
            messages = self._usual.decode_lines(b"\n".join(bodies))
            if len(messages) != len(bodies):
                return None
            groups = by_symbol(self._items(messages))
            return [self._quotes(symbol, group) for symbol, group in groups.items()]
        except UNREADABLE:
            return None

    def found(self, body: bytes) -> Found:
        """The trades of a message; one malformed if it cannot be taken apart."""
        try:
            return Found(self._usual_trades(self._items([self._usual.decode(body)])))
        except UNREADABLE:
            return self._one_by_one(body)

    # ---- as usual ----

    def _quotes(self, symbol: str, items: Sequence[Any]) -> Quotes:
        """Trades of a symbol as columns.

        Raises:
            ValueError: they are not as usual.
        """
        prices = [item.price for item in items]
        volumes = [item.volume for item in items]
        _check_finite(prices, volumes)
        times, sides = self._times([item.timestamp for item in items]), self._sides(items)
        return Quotes(symbol, times, prices, volumes, sides, [item.id for item in items])

    def _usual_trades(self, items: Sequence[Any]) -> list[Trade]:
        _check_finite([item.price for item in items], [item.volume for item in items])
        return self._trades(items, self._sides(items))

    def _sides(self, items: Sequence[Any]) -> Sequence[str]:
        takers = self._takers
        try:
            return [takers[item.side] for item in items]
        except KeyError:
            raise ValueError("a trade without a side") from None

    def _trades(self, items: Sequence[Any], sides: Sequence[str | None]) -> list[Trade]:
        times = self._times([item.timestamp for item in items])
        return [
            Trade(item.symbol, item.price, time, item.volume, side, item.id)
            for item, time, side in zip(items, times, sides, strict=True)
        ]

    # ---- one by one ----

    def _one_by_one(self, body: bytes) -> Found:
        if self._raw is None:
            trade = self._unusual_trade(body, lambda item: item)
            return Found([], 1) if trade is None else Found([trade])
        decoder, field = self._raw
        try:
            message = decoder.decode(body)
        except UNREADABLE:
            return Found([], 1)
        items = getattr(message, field)
        if not isinstance(items, list):
            trade = self._unusual_trade(items, partial(_with, message, field))
            return Found([], 1) if trade is None else Found([trade])
        found: list[Trade] = []
        left = MOST_ONE_BY_ONE
        blocks = [items[first : first + BLOCK] for first in reversed(range(0, len(items), BLOCK))]
        while blocks:
            block = blocks.pop()
            try:
                decoded = self._items_alone.decode(b"[" + b",".join(block) + b"]")
                found += self._usual_trades(self._items([_with(message, field, decoded)]))
            except UNREADABLE:
                # The one that is not as usual is found by halving, so that it alone is read in the dear way.
                if left == 0:
                    continue
                if (half := len(block) // 2) > 0:
                    blocks += block[half:], block[:half]
                else:
                    left -= 1
                    trade = self._unusual_trade(block[0], lambda item: _with(message, field, [item]))
                    if trade is not None:
                        found.append(trade)
        return Found(found, len(items) - len(found))

    def _unusual_trade(self, raw: bytes | msgspec.Raw, message_with: Callable[[Any], Any]) -> Trade | None:
        for decoder in self._unusual:
            try:
                items = self._items([message_with(_without_raw(decoder.decode(raw)))])
                (trade,) = self._trades(items, [self._takers.get(items[0].side)])
            except UNREADABLE:
                continue
            if not isfinite(trade.price):
                return None
            trade.volume = _volume(trade.volume)
            return trade
        return None


def _items_of(field: str | None, *, several: bool) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """Takes the trades of some messages."""
    if field is None:
        return lambda messages: messages
    items = attrgetter(field)
    if several:
        return lambda messages: list(chain.from_iterable(map(items, messages)))
    return lambda messages: list(map(items, messages))


def _are_apart(bodies: Sequence[bytes]) -> bool:
    """Whether these bodies can be lines: all look like objects, or all like arrays.

    Within a JSON value a closing bracket, a newline and an opening one never follow each other, and a text
    has no newline. So if all lines are read, each has at least one value.
    """
    try:
        ends = {*map(_FIRST, bodies)}, {*map(_LAST, bodies)}
    except IndexError:
        return False
    return ends in _BRACKETS


def _check_finite(prices: Sequence[float], volumes: Sequence[Any]) -> None:
    """Raise a ValueError if one of them is not finite, or no float."""
    try:
        total = sum(prices) + sum(volumes)  # finite only if all are
    except TypeError:
        total = inf
    if not isfinite(total):
        raise ValueError("not all numbers are finite")


def _with(message: Any, field: str, value: object) -> Any:
    setattr(message, field, value)
    return message


def _without_raw(item: Any) -> Any:
    """A trade with plain values in place of raw ones."""
    for field in item.__struct_fields__:
        value = getattr(item, field)
        if isinstance(value, msgspec.Raw):
            setattr(item, field, _plain(value))
    return item


def _plain(raw: msgspec.Raw) -> str | float | bool | None:
    """A value of any type; None if it is an object or an array, or cannot be read."""
    try:
        value = msgspec.json.decode(raw)
    except UNREADABLE:
        return None
    return value if isinstance(value, str | float | int) else None


def _volume(value: object) -> object:
    """A volume as a finite float; UNSET if there is none, and None if it cannot be one."""
    if value is UNSET:
        return value
    try:
        volume = msgspec.convert(value, float, strict=False)
    except UNREADABLE:
        return None
    return volume if isfinite(volume) else None
